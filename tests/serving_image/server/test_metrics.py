"""`/metrics` after known requests over HTTP, read with Prometheus's own parser; and the arithmetic behind it."""

from __future__ import annotations

import math
from collections import Counter

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving_image.server.completion_rate import CompletionRate
from tests.serving_image.serving import PATIENCE, RunningServer, running_server, wait_until

#: Name and type of all of vLLM's metrics that have a meaning here.
VLLM_METRICS = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:cache_config_info": "gauge",
    "vllm:prefix_cache_queries": "counter",
    "vllm:prefix_cache_hits": "counter",
    "vllm:num_preemptions": "counter",
    "vllm:prompt_tokens": "counter",
    "vllm:generation_tokens": "counter",
    "vllm:request_success": "counter",
    "vllm:iteration_tokens_total": "histogram",
    "vllm:request_prompt_tokens": "histogram",
    "vllm:request_generation_tokens": "histogram",
    "vllm:request_max_num_generation_tokens": "histogram",
    "vllm:request_params_n": "histogram",
    "vllm:request_params_max_tokens": "histogram",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:inter_token_latency_seconds": "histogram",
    "vllm:request_time_per_output_token_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram",
    "vllm:request_queue_time_seconds": "histogram",
    "vllm:request_prefill_time_seconds": "histogram",
    "vllm:request_decode_time_seconds": "histogram",
    "vllm:request_inference_time_seconds": "histogram",
}
STEP_SECONDS = 0.02


def families_of(server: RunningServer):
    return {family.name: family for family in text_string_to_metric_families(server.get("/metrics").text)}


def samples_of(server: RunningServer) -> Counter[str]:
    """Every sample by name; a reason or a bucket's edge is part of the name."""
    samples: Counter[str] = Counter()
    for family in families_of(server).values():
        for sample in family.samples:
            suffix = "".join(f" {sample.labels[key]}" for key in ("finished_reason", "le") if key in sample.labels)
            samples[sample.name + suffix] = sample.value
    return samples


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The real engine core over a device whose steps take 20 ms and whose every token is an `a`, in 16-token blocks."""
    from tests.serving_image.conftest import make_echo_model

    model = make_echo_model(tmp_path_factory.mktemp("metrics"), step_seconds=STEP_SECONDS)
    with running_server(model, "--served-model-name", "m", engine="deviceless") as running:
        yield running


@pytest.fixture
def change(server):
    """What the samples have grown by since the test began, once the engine is idle."""
    before = samples_of(server)

    def grown() -> Counter[str]:
        wait_until(lambda: server.metric("vllm:num_requests_running") == 0, "the engine is idle")
        now = samples_of(server)
        return Counter({name: now[name] - before[name] for name in now})

    return grown


def complete(server: RunningServer, prompt, max_tokens: int, **fields) -> httpx.Response:
    body = {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, **fields}
    answer = server.post("/v1/completions", body)
    assert answer.status_code == 200, answer.text
    return answer


class TestNames:
    def test_all_are_there_from_the_start_with_vllms_types_and_labels(self, server):
        families = families_of(server)
        assert {name: families[name].type for name in VLLM_METRICS if name in families} == VLLM_METRICS
        for name in VLLM_METRICS.keys() - {"vllm:cache_config_info"}:
            assert families[name].samples, name
            for sample in families[name].samples:
                assert (sample.labels["model_name"], sample.labels["engine"]) == ("m", "0")

    def test_bucket_edges(self, server):
        families = families_of(server)

        def edges(name: str) -> list[float]:
            return [float(s.labels["le"]) for s in families[name].samples if s.name.endswith("_bucket")]

        # The context is 1,024 tokens.
        assert edges("vllm:request_prompt_tokens") == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, math.inf]
        assert edges("vllm:request_params_max_tokens") == edges("vllm:request_prompt_tokens")
        assert edges("vllm:request_params_n") == [1, 2, 5, 10, 20, math.inf]
        assert edges("vllm:iteration_tokens_total")[-3:] == [8192, 16384, math.inf]
        assert edges("vllm:time_to_first_token_seconds")[:3] == [0.001, 0.005, 0.01]
        assert edges("vllm:time_to_first_token_seconds")[-3:] == [640, 2560, math.inf]
        assert edges("vllm:inter_token_latency_seconds")[-3:] == [40, 80, math.inf]
        assert edges("vllm:e2e_request_latency_seconds")[-3:] == [1920, 7680, math.inf]

    def test_the_cache(self, server):
        (info,) = families_of(server)["vllm:cache_config_info"].samples
        assert info.value == 1
        assert (info.labels["block_size"], info.labels["num_gpu_blocks"]) == ("16", "64")

    def test_both_processes(self, server):
        samples = samples_of(server)
        for prefix, process in (("", psutil.Process(server.process.pid)), ("slipway_engine_", server.engine)):
            memory = samples[f"{prefix}process_resident_memory_bytes"]
            assert memory == pytest.approx(process.memory_info().rss, rel=0.3)
            assert samples[f"{prefix}process_open_fds"] == pytest.approx(process.num_fds(), abs=3)
        assert samples["slipway:server_tasks"] >= 1
        assert "python_gc_collections_total" in samples


class TestCounts:
    def test_of_one_request(self, server, change):
        complete(server, "x" * 30, 12)
        grown = change()
        assert grown["vllm:prompt_tokens_total"] == 30
        assert grown["vllm:generation_tokens_total"] == 12
        assert grown["vllm:request_prompt_tokens_sum"] == 30
        assert grown["vllm:request_generation_tokens_sum"] == 12
        assert grown["vllm:request_max_num_generation_tokens_sum"] == 12
        assert grown["vllm:request_params_max_tokens_sum"] == 12
        assert grown["vllm:request_params_n_sum"] == 1
        assert grown["vllm:request_success_total length"] == 1
        assert grown["vllm:time_to_first_token_seconds_count"] == 1
        assert grown["vllm:inter_token_latency_seconds_count"] == 11
        # One step of the prompt, and one for every token but the last; how long it goes on past it is the engine's.
        assert grown["vllm:iteration_tokens_total_sum"] == 30 + 11
        assert grown["vllm:iteration_tokens_total_count"] == 12

    def test_of_several_answers_to_two_prompts(self, server, change):
        complete(server, ["y" * 5, "zz"], 7, n=3)
        grown = change()
        assert grown["vllm:prompt_tokens_total"] == 3 * (5 + 2)
        assert grown["vllm:generation_tokens_total"] == 6 * 7
        assert grown["vllm:request_success_total length"] == 6
        assert (grown["vllm:request_params_n_count"], grown["vllm:request_params_n_sum"]) == (2, 6)
        assert grown["vllm:request_max_num_generation_tokens_count"] == 2
        assert grown["vllm:request_max_num_generation_tokens_sum"] == 14

    def test_of_a_stop_string_even_in_the_last_token(self, server, change):
        for max_tokens, stop, reason in ((1, "b", "length"), (1, "a", "stop"), (500, "aaa", "stop")):
            (choice,) = complete(server, "q", max_tokens, stop=stop).json()["choices"]
            assert choice["finish_reason"] == reason
        grown = change()
        assert grown["vllm:request_success_total stop"] == 2
        assert grown["vllm:request_success_total length"] == 1
        assert grown["vllm:request_generation_tokens_sum"] < 3 * 20

    def test_of_a_client_that_leaves(self, server, change):
        body = {"prompt": "w" * 9, "max_tokens": 900, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=PATIENCE) as answer:
            lines = answer.iter_lines()
            next(line for line in lines if line)
        wait_until(lambda: server.metric("vllm:kv_cache_usage_perc") == 0, "its blocks are free")
        grown = change()
        assert grown["vllm:request_success_total abort"] == 1
        assert grown["vllm:e2e_request_latency_seconds_count"] == 1
        assert 0 < grown["vllm:request_generation_tokens_sum"] < 900

    def test_of_the_prefix_cache(self, server, change):
        prompt = "a shared prefix of more than four blocks of sixteen tokens, told twice over"
        first, second = (complete(server, prompt, 2).json()["usage"] for _ in range(2))
        grown = change()
        cached = second["prompt_tokens_details"]["cached_tokens"]
        assert first["prompt_tokens_details"]["cached_tokens"] == 0
        assert cached == len(prompt) // 16 * 16
        assert grown["vllm:prefix_cache_queries_total"] == 2 * len(prompt)
        assert grown["vllm:prefix_cache_hits_total"] == cached

    def test_a_refused_request_changes_nothing(self, server, change):
        assert server.post("/v1/completions", {"prompt": "x", "temperature": -1}).status_code == 400
        assert not [name for name, value in change().items() if name.startswith("vllm:request") and value]


class TestTimes:
    def test_phases_add_up(self, server, change):
        complete(server, "v" * 40, 10)
        grown = change()

        def total(name: str) -> float:
            assert grown[f"vllm:{name}_seconds_count"] == 1, name
            return grown[f"vllm:{name}_seconds_sum"]

        queue, prefill, decode = (total(f"request_{name}_time") for name in ("queue", "prefill", "decode"))
        assert prefill >= STEP_SECONDS
        assert decode >= 8 * STEP_SECONDS
        assert total("request_inference_time") == pytest.approx(prefill + decode)
        assert total("time_to_first_token") == pytest.approx(queue + prefill)
        assert total("e2e_request_latency") == pytest.approx(queue + prefill + decode)
        assert total("request_time_per_output_token") == pytest.approx(decode / 9)
        assert grown["vllm:inter_token_latency_seconds_sum"] == pytest.approx(decode)


class TestCompletionRate:
    def test_is_that_of_the_last_minute(self):
        rate = CompletionRate()
        assert rate.seconds_for(1, now=0) == math.inf
        for second in range(11):
            rate.count(100.0 + second)
        assert rate.seconds_for(5, now=110) == pytest.approx(5)
        assert rate.seconds_for(5, now=120) == pytest.approx(10)  # ten in twenty seconds
        assert rate.seconds_for(5, now=200) == math.inf

    def test_of_a_quick_server_is_that_of_its_last_ends(self):
        rate = CompletionRate()
        for number in range(1000):
            rate.count(0.01 * number)
        assert rate.seconds_for(100, now=9.99) == pytest.approx(1)
