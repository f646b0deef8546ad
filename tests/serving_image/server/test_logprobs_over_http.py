"""Log-probabilities through HTTP: the real engine against Transformers' logits."""

from __future__ import annotations

import pytest

from tests.serving_image.server.llama_reference import PROMPT


class TestLogprobs:
    @pytest.mark.parametrize("stream", [False, True])
    def test_a_completions_equal_transformers_with_several_answers(self, llama_server, reference, stream):
        """Of raw logits, whatever temperature, penalty or constraint chose the token."""
        with llama_server.client() as client:
            answer = client.completions.create(
                model="llama",
                prompt=PROMPT,
                max_tokens=10,
                temperature=1.5,
                presence_penalty=1,
                seed=3,
                n=2,
                logprobs=4,
                stream=stream,
                extra_body={"allowed_token_ids": list(reference.letters.values())},
            )
            chunks = list(answer) if stream else [answer]
        pieces = [choice for chunk in chunks for choice in chunk.choices]
        texts = []
        for index in range(2):
            mine = [choice for choice in pieces if choice.index == index]
            text = "".join(choice.text for choice in mine)
            assert [token for choice in mine for token in choice.logprobs.tokens] == list(text)
            ids = [reference.letters[letter] for letter in text]
            rows = reference.logprobs(reference.prompt + ids)[len(reference.prompt) - 1 : -1]
            expected = [float(row[id_]) for row, id_ in zip(rows, ids, strict=True)]
            assert [value for choice in mine for value in choice.logprobs.token_logprobs] == pytest.approx(
                expected, abs=1e-3
            )
            tops = [top for choice in mine for top in choice.logprobs.top_logprobs]
            for row, top, letter in zip(rows, tops, text, strict=True):
                assert letter in top
                assert len(top) <= 5
                assert max(top.values()) == pytest.approx(float(row.max()), abs=1e-3)
            texts.append(text)
        assert texts[0] != texts[1]

    def test_a_streams_chunks_have_the_tokens_of_their_text(self, llama_server):
        """Half characters and all: only the text of whole tokens comes with them."""
        body = {"prompt": PROMPT, "max_tokens": 60, "temperature": 1, "seed": 8, "logprobs": 1, "ignore_eos": True}
        whole = llama_server.post("/v1/completions", body).json()["choices"][0]
        with llama_server.client() as client:
            extra = {"ignore_eos": body.pop("ignore_eos")}
            chunks = list(client.completions.create(model="llama", **body, extra_body=extra, stream=True))
        streamed = [chunk.choices[0] for chunk in chunks]
        assert "".join(choice.text for choice in streamed) == whole["text"]
        given_out = 0
        for choice in streamed:
            assert all(given_out <= offset for offset in choice.logprobs.text_offset)
            given_out += len(choice.text)
            assert all(offset <= given_out for offset in choice.logprobs.text_offset)
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert [item for choice in streamed for item in getattr(choice.logprobs, name)] == whole["logprobs"][name]
        assert len(whole["logprobs"]["tokens"]) == 60

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_chats_equal_transformers(self, llama_server, reference, stream):
        messages = [{"role": "user", "content": "quick fox"}]
        prompt = llama_server.post("/tokenize", {"messages": messages}).json()["tokens"]
        with llama_server.client() as client:
            answer = client.chat.completions.create(
                model="llama",
                messages=messages,
                max_tokens=8,
                temperature=0,
                logprobs=True,
                top_logprobs=3,
                stream=stream,
                extra_body={"allowed_token_ids": list(reference.letters.values())},
            )
            chunks = list(answer) if stream else [answer]
        choices = [chunk.choices[0] for chunk in chunks]
        entries = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]
        text = "".join(entry.token for entry in entries)
        if not stream:
            assert text == choices[0].message.content
        else:
            assert text == "".join(choice.delta.content or "" for choice in choices)
        ids = [reference.letters[letter] for letter in text]
        rows = reference.logprobs(prompt + ids)[len(prompt) - 1 : -1]
        for entry, row, id_ in zip(entries, rows, ids, strict=True):
            assert entry.logprob == pytest.approx(float(row[id_]), abs=1e-3)
            assert bytes(entry.bytes).decode() == entry.token
            assert [top.logprob for top in entry.top_logprobs] == pytest.approx(row.topk(3).values.tolist(), abs=1e-3)


class TestPromptLogprobs:
    def check(self, entries, reference) -> None:
        rows = reference.logprobs(reference.prompt)
        assert entries[0] is None
        assert len(entries) == len(reference.prompt)
        for row, id_, entry in zip(rows[:-1], reference.prompt[1:], entries[1:], strict=True):
            best = row.topk(2)
            assert set(entry) == {str(id_), *map(str, best.indices.tolist())}
            own = entry[str(id_)]
            assert own["logprob"] == pytest.approx(float(row[id_]), abs=1e-3)
            assert own["rank"] == int((row > row[id_]).sum()) + 1
            assert entry[str(int(best.indices[0]))]["rank"] == 1
        assert PROMPT.endswith("".join(entry[str(id_)]["decoded_token"] for id_, entry in self.own(entries, reference)))

    def own(self, entries, reference):
        return list(zip(reference.prompt[1:], entries[1:], strict=True))

    def test_a_completions(self, complete, reference):
        answer = complete(prompt_logprobs=2, n=2, temperature=1)
        for choice in answer["choices"]:
            self.check(choice["prompt_logprobs"], reference)
        again = complete(prompt_logprobs=2)  # whatever of the prompt is cached by now
        self.check(again["choices"][0]["prompt_logprobs"], reference)

    def test_a_chats(self, llama_server, reference):
        messages = [{"role": "user", "content": "quick fox"}]
        prompt = llama_server.post("/tokenize", {"messages": messages}).json()["tokens"]
        body = {"messages": messages, "max_tokens": 1, "prompt_logprobs": 0}
        first, *entries = llama_server.post("/v1/chat/completions", body).json()["prompt_logprobs"]
        assert first is None
        expected = reference.logprobs(prompt)
        for row, id_, entry in zip(expected[:-1], prompt[1:], entries, strict=True):
            assert list(entry) == [str(id_)]
            assert entry[str(id_)]["logprob"] == pytest.approx(float(row[id_]), abs=1e-3)

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("max_tokens", [0, 3])
    def test_an_echoed_prompt_is_scored_with_the_answer(self, llama_server, reference, max_tokens, stream):
        """With max_tokens 0, how evaluation harnesses score a text."""
        with llama_server.client() as client:
            answer = client.completions.create(
                model="llama",
                prompt=PROMPT,
                max_tokens=max_tokens,
                temperature=0,
                echo=True,
                logprobs=1,
                stream=stream,
                extra_body={"allowed_token_ids": list(reference.letters.values())},
            )
            choices = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
        text = "".join(choice.text for choice in choices)
        assert text.startswith(PROMPT)
        assert len(text) == len(PROMPT) + max_tokens
        assert choices[-1].finish_reason == "length"
        if not stream:
            assert answer.usage.completion_tokens == max_tokens
        ids = reference.prompt + [reference.letters[letter] for letter in text[len(PROMPT) :]]
        rows = reference.logprobs(ids)
        values = [value for choice in choices for value in choice.logprobs.token_logprobs]
        assert values[0] is None
        expected = [float(row[id_]) for row, id_ in zip(rows[:-1], ids[1:], strict=True)]
        assert values[1:] == pytest.approx(expected, abs=1e-3)
        tokens = [token for choice in choices for token in choice.logprobs.tokens]
        offsets = [offset for choice in choices for offset in choice.logprobs.text_offset]
        assert text.endswith("".join(tokens[1:]))
        assert all(text[offset:].startswith(token) for token, offset in zip(tokens[1:], offsets[1:], strict=True))
