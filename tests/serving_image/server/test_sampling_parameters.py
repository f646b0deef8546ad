"""Every sampling parameter through HTTP: the real engine against Transformers' logits."""

from __future__ import annotations

import pytest
import torch

from tests.serving_image.server.llama_reference import PROMPT

EOS = 1


class TestChoosing:
    def test_allowed_tokens_are_the_only_ones(self, letters, reference):
        allowed = [reference.letters[letter] for letter in "ab"]
        text = letters(allowed_token_ids=allowed, temperature=2, max_tokens=40, seed=1)
        assert set(text) == {"a", "b"}
        assert len(text) == 40

    def test_a_bias_forces_a_token_or_keeps_it_out(self, letters, reference):
        plain = letters()
        assert letters(logit_bias={str(reference.letters["c"]): 100}) == "c" * 12
        banned = letters(logit_bias={str(reference.letters[plain[0]]): -100})
        assert plain[0] not in banned

    def test_a_bad_word_of_one_token_never_appears(self, letters):
        text = letters(bad_words=["a", "b"], temperature=2, max_tokens=80, seed=1)
        assert not {"a", "b"} & set(text)

    def test_a_longer_bad_word_never_appears_but_its_letters_do(self, letters, reference):
        fields = {"temperature": 2, "max_tokens": 200, "seed": 1}
        assert len(reference.tokenize("cd")) == 2
        assert "cd" in letters(**fields)
        text = letters(bad_words=["cd"], **fields)
        assert "cd" not in text
        assert {"c", "d"} <= set(text)

    def test_the_narrowest_min_p_top_k_and_top_p_are_greedy(self, complete):
        greedy = complete()["choices"][0]["text"]
        for narrow in ({"min_p": 1}, {"top_k": 1}, {"top_p": 1e-6}):
            assert complete(temperature=2, seed=4, **narrow)["choices"][0]["text"] == greedy
        assert complete(temperature=2, seed=4)["choices"][0]["text"] != greedy

    def test_min_p_keeps_what_is_likely_enough(self, complete, reference):
        """Single tokens of 200 answers: each is at least half as probable as the best one, and several are chosen."""
        probabilities = reference.logits(reference.prompt)[-1].softmax(-1)
        answer = complete(n=100, max_tokens=1, temperature=1, seed=5, min_p=0.3, logprobs=0, skip_special_tokens=False)
        chosen = {choice["logprobs"]["token_logprobs"][0] for choice in answer["choices"]}
        likely = probabilities[probabilities >= 0.3 * probabilities.max()].log()
        assert len(chosen) > 1
        for logprob in chosen:
            assert (likely - logprob).abs().min() < 1e-4

    def test_seeds(self, complete):
        def texts(seed: int) -> list[str]:
            answer = complete(temperature=1, n=3, max_tokens=16, seed=seed)
            return [choice["text"] for choice in answer["choices"]]

        assert texts(1) == texts(1) != texts(2)
        assert len(set(texts(1))) == 3


class TestPenalties:
    LENGTH = 24

    @pytest.mark.parametrize(
        ("presence", "frequency", "repetition"),
        [(1.5, 0, 1), (0, 0.9, 1), (0, 0, 3), (-1.0, 0.4, 1.2)],
    )
    def test_they_change_the_logits_as_openai_and_ctrl_define(
        self, letters, reference, *, presence, frequency, repetition
    ):
        # It holds some of the letters: repetition counts those, presence and frequency do not.
        prompt = reference.prompt + [reference.letters[letter] for letter in "abc"]

        def change(row: torch.Tensor, answer: list[int]) -> torch.Tensor:
            for id_ in set(prompt + answer):
                row[id_] = row[id_] / repetition if row[id_] > 0 else row[id_] * repetition
            for id_ in set(answer):
                row[id_] -= presence + frequency * answer.count(id_)
            return row

        fields = {"prompt": prompt, "max_tokens": self.LENGTH}
        penalties = {"presence_penalty": presence, "frequency_penalty": frequency, "repetition_penalty": repetition}
        text, plain = letters(**fields, **penalties), letters(**fields)
        assert text == reference.greedy_letters(prompt, self.LENGTH, change)
        assert plain == reference.greedy_letters(prompt, self.LENGTH, lambda row, _: row)
        assert plain != text


class TestEnding:
    def test_the_end_token_ends_unless_ignored_or_too_early(self, complete):
        forced = {"logit_bias": {str(EOS): 100}, "ignore_eos": False}
        answer = complete(**forced)
        assert (answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == ("", "stop")
        assert answer["usage"]["completion_tokens"] == 1
        assert complete(**forced, min_tokens=5)["usage"]["completion_tokens"] == 6
        assert complete(**(forced | {"ignore_eos": True}))["usage"]["completion_tokens"] == 12

    def test_a_stop_token_ends_and_is_shown_only_if_asked_for(self, letters, reference):
        plain = letters()
        fields = {"stop_token_ids": [reference.letters[plain[3]]]}
        until = plain[: plain.index(plain[3])]
        assert letters(**fields) == until
        assert letters(**fields, include_stop_str_in_output=True) == until + plain[3]

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_stop_string_over_tokens(self, llama_server, letters, reference, stream):
        plain = letters()
        stop = plain[4:7]
        body = {
            "prompt": PROMPT,
            "max_tokens": 12,
            "temperature": 0,
            "allowed_token_ids": list(reference.letters.values()),
            "stop": [stop],
            "logprobs": 0,
        }
        with llama_server.client() as client:
            extra = {"allowed_token_ids": body.pop("allowed_token_ids")}
            answer = client.completions.create(model="llama", **body, extra_body=extra, stream=stream)
            choices = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
        kept = plain[: plain.index(stop)]
        assert "".join(choice.text for choice in choices) == kept
        assert choices[-1].finish_reason == "stop"
        tokens = [token for choice in choices for token in choice.logprobs.tokens]
        assert "".join(tokens) == kept + stop
        offsets = [offset for choice in choices for offset in choice.logprobs.text_offset]
        assert offsets == [min(offset, len(kept)) for offset in range(len(tokens))]


class TestScheduling:
    def test_only_the_same_salt_shares_a_cached_prefix(self, complete):
        prompt = "brown dog " * 40

        def cached(**fields) -> int:
            return complete(prompt, max_tokens=1, **fields)["usage"]["prompt_tokens_details"]["cached_tokens"]

        assert cached(cache_salt="one") == 0
        assert cached(cache_salt="one") > 0
        assert cached(cache_salt="two") == 0
        assert cached() == 0

    def test_a_priority_changes_no_answer(self, complete):
        assert complete(priority=-5)["choices"] == complete(priority=7)["choices"] == complete()["choices"]

    def test_best_of_is_served_where_it_is_n(self, complete):
        assert len(complete(n=3, best_of=3, temperature=1)["choices"]) == 3


def test_a_poisoned_request_fails_alone(llama_server, complete):
    fine = complete()["choices"][0]["text"]
    for poison in (
        {"n": 10**9},
        {"logit_bias": {"999999": 1}},
        {"prompt": [384]},
        {"structured_outputs": {"regex": "("}},
    ):
        assert llama_server.post("/v1/completions", {"prompt": PROMPT} | poison).status_code == 400
    assert complete()["choices"][0]["text"] == fine
    assert llama_server.get("/health").status_code == 200
