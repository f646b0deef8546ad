"""Every bundled template against the prompt that its family's published definition gives, written out."""

from __future__ import annotations

import pytest

from serving_image import chat_templates
from serving_image.server.chat_template import ChatTemplate
from serving_image.server.errors import ApiError
from serving_image.server.tokenizer import Tokenizer
from tests.serving_image.server.tokenizer_formats.vocabularies import sentencepiece_bytes, write_config

SYSTEM, *CONVERSATION = MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi, 你好"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "How are\nyou?"},
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
#: With a system message; a beginning that is other where the conversation has none stands in :data:`DEFAULTS`.
PROMPTS = {
    "aquila": "Be brief.###Human: Hi, 你好###Assistant: Hello!###Human: How are\nyou?###Assistant:",
    "aquila2": "Be brief.<|startofpiece|>Hi, 你好<|endofpiece|>Hello!</s><|startofpiece|>How are\nyou?<|endofpiece|>",
    "baichuan": "Be brief.<reserved_102>Hi, 你好<reserved_103>Hello!<reserved_102>How are\nyou?<reserved_103>",
    "baichuan2": "Be brief.<reserved_106>Hi, 你好<reserved_107>Hello!<reserved_106>How are\nyou?<reserved_107>",
    "chatglm2": (
        "[gMASK]sopBe brief.\n\n[Round 1]\n\n问：Hi, 你好\n\n答：Hello!\n\n[Round 2]\n\n问：How are\nyou?\n\n答："
    ),
    "chatglm3": (
        "[gMASK]sop<|system|>\n Be brief.<|user|>\n Hi, 你好<|assistant|>\n Hello!<|user|>\n How are\nyou?<|assistant|>"
    ),
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi, 你好<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nHow are\nyou?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "dolly": (
        "Be brief.\n\n### Instruction:\nHi, 你好\n\n### Response:\nHello!\n\n### End\n\n"
        "### Instruction:\nHow are\nyou?\n\n### Response:\n"
    ),
    "falcon-instruct": "Be brief.\n\nUser: Hi, 你好\n\nAssistant: Hello!\n\nUser: How are\nyou?\n\nAssistant:",
    "internlm": "<s><|System|>:Be brief.\n<|User|>:Hi, 你好\n<|Bot|>:Hello!<eoa>\n<|User|>:How are\nyou?\n<|Bot|>:",
    "jais": (
        "### Instruction: Be brief.\n\nComplete the conversation below between [|Human|] and [|AI|]:\n"
        "### Input: [|Human|] Hi, 你好\n### Response: [|AI|] Hello!\n"
        "### Input: [|Human|] How are\nyou?\n### Response: [|AI|]"
    ),
    "llama-2": (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi, 你好 [/INST] Hello! </s><s>[INST] How are\nyou? [/INST]"
    ),
    "orion": "<s>Be brief.\n\nHuman: Hi, 你好\n\nAssistant: </s>Hello!</s>Human: How are\nyou?\n\nAssistant: </s>",
    "persimmon": "<s>Be brief.\n\nhuman: Hi, 你好\n\nadept: Hello!\n\nhuman: How are\nyou?\n\nadept:",
    "qwen": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi, 你好<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nHow are\nyou?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "stablelm-zephyr": (
        "<|system|>\nBe brief.</s>\n<|user|>\nHi, 你好</s>\n<|assistant|>\nHello!</s>\n"
        "<|user|>\nHow are\nyou?</s>\n<|assistant|>\n"
    ),
    "vicuna": "<s>Be brief. USER: Hi, 你好 ASSISTANT: Hello!</s>USER: How are\nyou? ASSISTANT:",
    "xverse": "Be brief.\n\nHuman: Hi, 你好\n\nAssistant: Hello!</s>Human: How are\nyou?\n\nAssistant: ",
}
#: The beginning with a system message, and what stands in its place without one.
DEFAULTS = {
    "aquila": (
        "Be brief.###",
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions.###",
    ),
    "aquila2": ("Be brief.", ""),
    "baichuan": ("Be brief.", ""),
    "baichuan2": ("Be brief.", ""),
    "chatglm2": ("Be brief.\n\n", ""),
    "chatglm3": ("<|system|>\n Be brief.", ""),
    "chatml": ("<|im_start|>system\nBe brief.<|im_end|>\n", ""),
    "dolly": (
        "Be brief.\n\n",
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n",
    ),
    "falcon-instruct": ("Be brief.\n\n", ""),
    "internlm": ("<|System|>:Be brief.\n", ""),
    "jais": ("Be brief.", "Your name is Jais. You are a helpful, respectful and honest assistant."),
    "llama-2": ("<<SYS>>\nBe brief.\n<</SYS>>\n\n", ""),
    "orion": ("Be brief.\n\n", ""),
    "persimmon": ("Be brief.\n\n", ""),
    "qwen": ("Be brief.", "You are a helpful assistant."),
    "stablelm-zephyr": ("<|system|>\nBe brief.</s>\n", ""),
    "vicuna": (
        "Be brief. ",
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. ",
    ),
    "xverse": ("Be brief.\n\n", ""),
}
STOPS = {
    "aquila": ("###", "</s>", "[UNK]"),
    "aquila2": ("</s>", "<|endoftext|>"),
    "baichuan": ("<reserved_102>",),
    "baichuan2": ("<reserved_106>",),
    "chatglm3": ("<|user|>", "<|observation|>"),
    "chatml": ("<|im_end|>",),
    "dolly": ("### End",),
    "falcon-instruct": ("\nUser",),
    "internlm": ("<eoa>",),
    "jais": ("### Input:",),
    "persimmon": ("\n\nhuman:",),
    "qwen": ("<|im_end|>", "<|im_start|>"),
}


def test_every_bundled_template_is_tested():
    assert chat_templates.names() == sorted(PROMPTS) == sorted(DEFAULTS)


@pytest.mark.parametrize("name", PROMPTS)
class TestEach:
    def test_a_conversation_with_a_system_message(self, name):
        template = ChatTemplate(chat_templates.read(name), SPECIAL)
        assert template.render(MESSAGES) == PROMPTS[name]
        assert template.stop_strings == STOPS.get(name, ())

    def test_a_conversation_without_one(self, name):
        given, default = DEFAULTS[name]
        expected = PROMPTS[name].replace(given, default, 1)
        assert ChatTemplate(chat_templates.read(name), SPECIAL).render(CONVERSATION) == expected

    def test_a_conversation_that_ends_with_an_answer_asks_for_none(self, name):
        template = ChatTemplate(chat_templates.read(name), SPECIAL)
        answered = template.render(MESSAGES[:3], add_generation_prompt=False)
        assert template.render(MESSAGES).startswith(answered)
        assert answered.rstrip("\n# End").endswith(("Hello!", "Hello!</s>", "Hello! </s>", "Hello!<eoa>", "<|im_end|>"))

    @pytest.mark.parametrize("misplaced", [[*MESSAGES, SYSTEM], [{"role": "tool", "content": "1"}]])
    def test_a_message_that_it_has_no_place_for_is_refused(self, name, misplaced):
        with pytest.raises(ApiError, match="The roles are user and assistant, after at most one system message"):
            ChatTemplate(chat_templates.read(name), SPECIAL).render(misplaced)


def test_chatglm3s_tokens_are_those_of_its_own_code(tmp_path):
    """The code tokenizes a line break and each message apart, and puts role tokens between."""
    import sentencepiece

    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_bytes())
    write_config(tmp_path, tokenizer_class="ChatGLMTokenizer")
    truth = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_bytes())
    first = truth.get_piece_size()
    gmask, sop, system, user, assistant = first + 1, first + 3, first + 5, first + 6, first + 7
    ids = [gmask, sop]
    for role, message in zip((system, user, assistant, user), MESSAGES, strict=True):
        ids += [role, *truth.encode("\n"), *truth.encode(message["content"])]
    prompt = ChatTemplate(chat_templates.read("chatglm3"), {}).render(MESSAGES)
    assert Tokenizer(tmp_path)._encode(prompt, False) == [*ids, assistant]


def test_baichuan2s_tokens_are_those_of_its_own_code(tmp_path):
    """The code tokenizes each message apart, and puts role tokens between. Baichuan 2 has no prefix space."""
    import sentencepiece

    options = {"add_dummy_prefix": False, "user_defined_symbols": ("<reserved_106>", "<reserved_107>")}
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_bytes(**options))
    write_config(tmp_path, tokenizer_class="BaichuanTokenizer", add_bos_token=False)
    truth = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_bytes(**options))
    user, assistant = truth.piece_to_id("<reserved_106>"), truth.piece_to_id("<reserved_107>")
    system, hi, hello, how = (truth.encode(message["content"]) for message in MESSAGES)
    prompt = ChatTemplate(chat_templates.read("baichuan2"), {}).render(MESSAGES)
    assert Tokenizer(tmp_path)._encode(prompt, False) == [*system, user, *hi, assistant, *hello, user, *how, assistant]
