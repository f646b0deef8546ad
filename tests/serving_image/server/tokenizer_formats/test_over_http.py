"""A checkpoint of an old family as it is published: no tokenizer.json, no chat template, code that must not run."""

from __future__ import annotations

import json

from tests.serving_image.server.tokenizer_formats.vocabularies import sentencepiece_bytes, write_config
from tests.serving_image.serving import running_server

SAID = "the weather 今天天气很好 🎉 naïve"


def test_chatglm3_chats_with_a_bundled_template(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_bytes())
    auto_map = {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]}
    write_config(tmp_path, tokenizer_class="ChatGLMTokenizer", auto_map=auto_map)
    (tmp_path / "tokenization_chatglm.py").write_text("raise SystemExit('this code ran')")
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 720}))
    (tmp_path / "model.safetensors").touch()
    options = ["--served-model-name", "glm", "--chat-template", "chatglm3"]
    with running_server(tmp_path, *options, engine="echo") as server, server.client() as client:
        # The model repeats the prompt, which begins with special tokens and ends its first message with one.
        stream = client.chat.completions.create(
            model="glm", messages=[{"role": "system", "content": SAID}], max_tokens=200, stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert "".join(pieces).startswith(f" \n {SAID}")
        assert len(pieces) > 20
        answer = client.chat.completions.create(
            model="glm", messages=[{"role": "user", "content": SAID}], max_tokens=200
        )
        assert answer.choices[0].finish_reason == "stop"
        assert answer.choices[0].message.content == ""
        assert answer.usage.completion_tokens == 3  # [gMASK] sop <|user|>
