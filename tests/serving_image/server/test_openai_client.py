"""The official client against the server; its model repeats the prompt, one byte a token, so every answer is known."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

TEXT = "héllo 🎉 wörld. "
NUM_BYTES = len(TEXT.encode())


def chat(client: openai.OpenAI, content: str = TEXT, **fields):
    return client.chat.completions.create(model="echo", messages=[{"role": "user", "content": content}], **fields)


def complete(client: openai.OpenAI, prompt=TEXT, **fields):
    return client.completions.create(model="echo", prompt=prompt, **fields)


class TestChat:
    def test_an_answer_has_text_usage_and_a_reason(self, echo_client):
        answer = chat(echo_client, max_tokens=NUM_BYTES)
        assert answer.choices[0].message.content == TEXT
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].finish_reason == "length"
        assert answer.model == "echo"
        assert answer.id.startswith("chatcmpl-")
        usage = answer.usage
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (
            NUM_BYTES,
            NUM_BYTES,
            2 * NUM_BYTES,
        )

    def test_a_stream_has_the_role_first_then_whole_characters_then_the_reason_then_the_usage(self, echo_client):
        stream = chat(echo_client, max_tokens=NUM_BYTES, stream=True, stream_options={"include_usage": True})
        *chunks, last = list(stream)
        assert chunks[0].choices[0].delta.role == "assistant"
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
        assert [piece for piece in pieces if piece] == list(TEXT)
        assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
        assert all(chunk.usage is None for chunk in chunks)
        assert last.choices == []
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (NUM_BYTES, NUM_BYTES)

    def test_content_may_come_in_text_parts(self, echo_client):
        messages = [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]
        answer = echo_client.chat.completions.create(model="echo", messages=messages, max_tokens=7)
        assert answer.choices[0].message.content == "one\ntwo"

    def test_an_answer_may_be_sent_back_as_the_client_has_it(self, echo_client):
        answer = chat(echo_client, "abc", max_tokens=3).choices[0].message
        messages = [{"role": "user", "content": "abc"}, answer, {"role": "user", "content": "xyz"}]
        again = echo_client.chat.completions.create(model="echo", messages=messages, max_completion_tokens=3)
        assert again.choices[0].message.content == "xyz"

    def test_without_max_tokens_an_answer_may_fill_the_context(self, echo_client):
        assert chat(echo_client, "abc").usage.total_tokens == 512


class TestStopping:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        ("stop", "kept"),
        [("🎉", "héllo "), (["zzz", "lo 🎉"], "hél"), ("wörld. h", "héllo 🎉 "), (["o", "llo"], "hé")],
    )
    def test_a_stop_string_across_tokens_ends_the_text_before_it(self, echo_client, stop, kept, stream):
        if stream:
            chunks = list(complete(echo_client, max_tokens=50, stop=stop, stream=True))
            assert "".join(chunk.choices[0].text for chunk in chunks) == kept
            assert chunks[-1].choices[0].finish_reason == "stop"
        else:
            choice = complete(echo_client, max_tokens=50, stop=stop).choices[0]
            assert (choice.text, choice.finish_reason) == (kept, "stop")

    def test_tokens_are_counted_up_to_the_one_that_stopped(self, echo_client):
        assert complete(echo_client, "abcdef", max_tokens=50, stop="d").usage.completion_tokens == 4

    def test_a_stop_string_may_be_included(self, echo_client):
        fields = {"max_tokens": 50, "stop": "d", "extra_body": {"include_stop_str_in_output": True}}
        assert complete(echo_client, "abcdef", **fields).choices[0].text == "abcd"

    def test_text_held_back_for_a_stop_string_comes_when_the_answer_ends(self, echo_client):
        answer = complete(echo_client, "abcdef", max_tokens=5, stop="efg").choices[0]
        assert (answer.text, answer.finish_reason) == ("abcde", "length")

    def test_a_stop_token_is_not_part_of_the_text(self, echo_client):
        ids = [97, 98, 99, 100]
        answer = complete(echo_client, ids, max_tokens=50, extra_body={"stop_token_ids": [99]})
        whole = complete(echo_client, ids, max_tokens=2)
        assert answer.choices[0].text == whole.choices[0].text
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens == 3

    @pytest.mark.parametrize(("ignore_eos", "reason", "tokens"), [(False, "stop", 3), (True, "length", 8)])
    def test_the_models_end_token_ends_unless_ignored(self, echo_client, ignore_eos, reason, tokens):
        answer = complete(echo_client, [64, 65, 257], max_tokens=8, extra_body={"ignore_eos": ignore_eos})
        assert answer.choices[0].finish_reason == reason
        assert answer.usage.completion_tokens == tokens

    def test_before_min_tokens_nothing_stops(self, echo_client):
        fields = {"max_tokens": 50, "stop": "b", "extra_body": {"min_tokens": 4}}
        assert complete(echo_client, "abcabc", **fields).choices[0].text == "abca"

    def test_special_tokens_are_shown_when_asked_for(self, echo_client):
        fields = {"ignore_eos": True, "skip_special_tokens": False}
        assert "</s>" in complete(echo_client, [64, 257], max_tokens=4, extra_body=fields).choices[0].text
        fields = {"ignore_eos": True}
        assert "</s>" not in complete(echo_client, [64, 257], max_tokens=4, extra_body=fields).choices[0].text

    def test_a_character_cut_by_max_tokens_is_left_out(self, echo_client):
        assert complete(echo_client, "é🎉", max_tokens=4).choices[0].text == "é"


class TestCompletions:
    def test_several_prompts_and_several_answers_each(self, echo_client):
        answer = complete(echo_client, ["abc", "xyz"], n=2, max_tokens=3)
        assert [(c.index, c.text) for c in answer.choices] == [(0, "abc"), (1, "abc"), (2, "xyz"), (3, "xyz")]
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 12)

    def test_several_answers_stream_side_by_side(self, echo_client):
        texts = {}
        for chunk in complete(echo_client, ["abc", "xyz"], max_tokens=3, stream=True):
            (choice,) = chunk.choices
            texts[choice.index] = texts.get(choice.index, "") + choice.text
        assert texts == {0: "abc", 1: "xyz"}

    def test_lists_of_token_ids(self, echo_client):
        one = complete(echo_client, [64, 65], max_tokens=2).choices[0].text
        two = complete(echo_client, [[64, 65], [65]], max_tokens=2)
        assert two.choices[0].text == one
        assert two.choices[1].text == one[1] * 2

    @pytest.mark.parametrize("stream", [False, True])
    def test_echo_puts_the_prompt_before_the_answer(self, echo_client, stream):
        answer = complete(echo_client, "abc", max_tokens=2, echo=True, stream=stream)
        text = "".join(chunk.choices[0].text for chunk in answer) if stream else answer.choices[0].text
        assert text == "abcab"

    def test_sixteen_tokens_is_the_default(self, echo_client):
        assert complete(echo_client, "a").usage.completion_tokens == 16


class TestOtherRoutes:
    def test_models(self, echo_client):
        assert [model.id for model in echo_client.models.list()] == ["echo"]
        assert echo_client.models.retrieve("echo").max_model_len == 512

    def test_tokenize_and_back(self, echo_server):
        tokenized = echo_server.post("/tokenize", {"prompt": TEXT}).json()
        assert tokenized["count"] == len(tokenized["tokens"]) == NUM_BYTES
        assert tokenized["max_model_len"] == 512
        assert echo_server.post("/detokenize", {"tokens": tokenized["tokens"]}).json() == {"prompt": TEXT}

    def test_tokenize_messages(self, echo_server):
        messages = [{"role": "user", "content": "abc"}]
        assert echo_server.post("/tokenize", {"messages": messages}).json()["count"] == 3

    def test_probes(self, echo_server):
        assert echo_server.get("/ready").json() == {"ready": True}
        assert echo_server.get("/health").json()["engine_heartbeat_age_s"] < 60
        assert echo_server.get("/version").json()["version"]

    def test_metrics_count_tokens_and_answers(self, echo_server, echo_client):
        names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:e2e_request_latency_seconds_count")
        before = [echo_server.metric(name, model_name="echo") for name in names]
        stopped = echo_server.metric("vllm:request_success_total", finished_reason="stop")
        complete(echo_client, "abcdef", max_tokens=50, stop="d")
        after = [echo_server.metric(name, model_name="echo") for name in names]
        assert after[0] - before[0] == 6
        assert after[1] - before[1] >= 4  # the engine may be a token ahead when it hears of the stop string
        assert after[2] - before[2] == 1
        assert echo_server.metric("vllm:request_success_total", finished_reason="stop") == stopped + 1

    def test_a_request_is_one_log_line_without_its_words(self, echo_server, echo_client):
        answer = complete(echo_client, "secret words", max_tokens=12)
        (line,) = [line for line in echo_server.lines if answer.id in line]
        assert "prompt_tokens=12" in line
        assert "status=200" in line
        assert "secret" not in echo_server.log.read_text()


BAD_REQUESTS = [
    ("completions", {}, "prompt"),
    ("completions", {"prompt": ""}, "prompt"),
    ("completions", {"prompt": []}, "prompt"),
    ("completions", {"prompt": [[]]}, "prompt"),
    ("completions", {"prompt": ["a", 1]}, "prompt"),
    ("completions", {"prompt": [1, "a"]}, "prompt"),
    ("completions", {"prompt": [1.5]}, "prompt"),
    ("completions", {"prompt": [-1]}, "prompt"),
    ("completions", {"prompt": [258]}, "prompt"),
    ("completions", {"prompt": "a" * 512}, "prompt"),
    ("completions", {"prompt": "a", "temperature": "warm"}, "temperature"),
    ("completions", {"prompt": "a", "temperature": 2.1}, "temperature"),
    ("completions", {"prompt": "a", "top_p": 0}, "top_p"),
    ("completions", {"prompt": "a", "top_k": -2}, "top_k"),
    ("completions", {"prompt": "a", "n": 0}, "n"),
    ("completions", {"prompt": "a", "n": 129}, "n"),
    ("completions", {"prompt": "a", "n": 10**30}, "n"),
    ("completions", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ("completions", {"prompt": "a", "min_tokens": 20}, "min_tokens"),
    ("completions", {"prompt": "a", "seed": 2**70}, "seed"),
    ("completions", {"prompt": "a", "stop": ""}, "stop"),
    ("completions", {"prompt": "a", "stop": ["a"] * 17}, "stop"),
    ("completions", {"prompt": "a", "stop_token_ids": [999]}, "stop_token_ids"),
    ("completions", {"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
    ("completions", {"prompt": "a", "logprobs": 21}, "logprobs"),
    ("completions", {"prompt": "a", "logprobs": True}, "logprobs"),
    ("completions", {"prompt": "a", "logprobs": -1}, "logprobs"),
    ("completions", {"prompt": "a", "prompt_logprobs": 21}, "prompt_logprobs"),
    ("completions", {"prompt": "a", "prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    ("completions", {"prompt": "a", "suffix": "z"}, "suffix"),
    ("completions", {"prompt": "a", "best_of": 2}, "best_of"),
    ("completions", {"prompt": "a", "presence_penalty": 2.1}, "presence_penalty"),
    ("completions", {"prompt": "a", "frequency_penalty": -2.1}, "frequency_penalty"),
    ("completions", {"prompt": "a", "repetition_penalty": 0}, "repetition_penalty"),
    ("completions", {"prompt": "a", "repetition_penalty": 1e300}, "repetition_penalty"),
    ("completions", {"prompt": "a", "min_p": 1.1}, "min_p"),
    ("completions", {"prompt": "a", "min_p": -0.1}, "min_p"),
    ("completions", {"prompt": "a", "logit_bias": {"5": 101}}, "logit_bias"),
    ("completions", {"prompt": "a", "logit_bias": {"a": 1}}, "logit_bias"),
    ("completions", {"prompt": "a", "logit_bias": {"-1": 1}}, "logit_bias"),
    ("completions", {"prompt": "a", "logit_bias": {"258": 1}}, "logit_bias"),
    ("completions", {"prompt": "a", "allowed_token_ids": []}, "allowed_token_ids"),
    ("completions", {"prompt": "a", "allowed_token_ids": [258]}, "allowed_token_ids"),
    ("completions", {"prompt": "a", "allowed_token_ids": [257], "min_tokens": 1}, "allowed_token_ids"),
    ("completions", {"prompt": "a", "allowed_token_ids": [64], "bad_words": ["a"]}, "allowed_token_ids"),
    ("completions", {"prompt": "a", "bad_words": [""]}, "bad_words"),
    ("completions", {"prompt": "a", "bad_words": "a"}, "bad_words"),
    ("completions", {"prompt": "a", "bad_words": ["a"] * 1001}, "bad_words"),
    ("completions", {"prompt": "a", "priority": 2**63}, "priority"),
    ("completions", {"prompt": "a", "priority": "high"}, "priority"),
    ("completions", {"prompt": "a", "cache_salt": ""}, "cache_salt"),
    ("completions", {"prompt": "a", "structured_outputs": {"choice": ["a"]}}, "structured_outputs"),
    ("completions", {"prompt": "a", "temprature": 1}, "temprature"),
    ("chat/completions", {}, "messages"),
    ("chat/completions", {"messages": []}, "messages"),
    ("chat/completions", {"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role"),
    ("chat/completions", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0]",
    ),
    ("chat/completions", {"messages": [{"role": "user", "content": "a"}], "logprobs": 1}, "logprobs"),
    ("chat/completions", {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 1}, "top_logprobs"),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": "a"}], "logprobs": True, "top_logprobs": 21},
        "top_logprobs",
    ),
    ("chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 0}, "max_tokens"),
    ("chat/completions", {"messages": [{"role": "user", "content": "a"}], "tools": [{}]}, "tools"),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "json_object"}},
        "response_format",
    ),
]


class TestRefusals:
    @pytest.mark.parametrize(("route", "body", "param"), BAD_REQUESTS)
    def test_a_bad_request_is_told_which_field_is_wrong(self, echo_server, route, body, param):
        answer = echo_server.post(f"/v1/{route}", body)
        error = answer.json()["error"]
        assert answer.status_code == 400
        assert error["type"] == "invalid_request_error"
        assert error["param"].startswith(param)
        assert param.partition("[")[0] in error["message"]

    def test_too_long_a_prompt_is_told_the_limit(self, echo_client):
        with pytest.raises(openai.BadRequestError, match=r"512 tokens and the prompt has 600") as error:
            complete(echo_client, "a" * 600)
        assert error.value.code == "context_length_exceeded"

    def test_what_is_no_json(self, echo_server):
        answer = httpx.post(f"{echo_server.url}/v1/completions", content=b'{"prompt": ')
        assert answer.status_code == 400
        assert "JSON" in answer.json()["error"]["message"]

    def test_another_model(self, echo_client):
        with pytest.raises(openai.NotFoundError, match="this server has echo"):
            echo_client.completions.create(model="gpt-9", prompt="a")

    @pytest.mark.parametrize(
        ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405)]
    )
    def test_routes_that_are_none(self, echo_server, method, path, status):
        answer = httpx.request(method, f"{echo_server.url}{path}")
        assert answer.status_code == status
        assert path in answer.json()["error"]["message"]

    def test_fields_that_ask_for_nothing_pass(self, echo_server):
        neutral = {
            "logprobs": None,
            "presence_penalty": 0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "min_p": 0,
            "logit_bias": {},
            "best_of": 1,
            "suffix": None,
            "n": None,
            "temperature": None,
            "stop": None,
            "user": "someone",
            "store": True,
            "metadata": {"a": "b"},
            "service_tier": "auto",
        }
        answer = echo_server.post("/v1/completions", {"prompt": "ab", "max_tokens": 2} | neutral)
        assert answer.json()["choices"][0]["text"] == "ab"

    def test_a_body_beyond_reason(self, echo_server):
        answer = httpx.post(f"{echo_server.url}/v1/completions", content=b" " * (33 * 2**20))
        assert answer.status_code == 413


def test_a_stream_is_events_that_end_with_done(echo_server):
    """For clients in other languages: the bytes themselves."""
    body = {"prompt": "ab", "max_tokens": 2, "stream": True}
    answer = echo_server.post("/v1/completions", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events[:-2]] == ["a", "b"]
