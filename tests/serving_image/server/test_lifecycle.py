"""What becomes of requests, and of the process, when clients leave, the engine dies, or a signal comes."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import psutil
import pytest

from tests.serving_image.serving import PATIENCE, RunningServer, running_server, started_server, wait_until

FOREVER = {"prompt": "abc", "max_tokens": 100_000, "ignore_eos": True}


@pytest.fixture
def slow_model(echo_model):
    """Two hundred tokens a second into a context that takes minutes to fill."""
    return echo_model(step_seconds=0.005, max_model_len=100_000, max_num_seqs=1)


def first_piece(lines) -> str:
    return next(line for line in lines if line.startswith("data: "))


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def aborted(server: RunningServer) -> float:
    return server.metric("vllm:request_success_total", finished_reason="abort")


class TestClientLeaves:
    @pytest.mark.parametrize("stream", [True, False])
    def test_its_request_is_aborted_and_its_blocks_are_freed(self, slow_model, stream):
        with running_server(slow_model, engine="echo") as server:
            with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
                request = client.build_request("POST", "/v1/completions", json=FOREVER | {"stream": stream})
                if stream:
                    first_piece(client.send(request, stream=True).iter_lines())
                else:
                    request.extensions["timeout"]["read"] = 0.3
                    with pytest.raises(httpx.ReadTimeout):
                        client.send(request)
            wait_until(lambda: aborted(server) == 1, "the server notices")
            wait_until(lambda: server.metric("vllm:num_requests_running") == 0, "the engine aborts the request")
            assert server.metric("vllm:kv_cache_usage_perc") == 0
            again = server.post("/v1/completions", {"prompt": "abc", "max_tokens": 3})
            assert again.json()["choices"][0]["text"] == "abc"
            assert "Traceback" not in server.log.read_text()


class TestAdmission:
    def test_a_full_server_answers_429_and_says_when_to_come_back(self, slow_model):
        with running_server(slow_model, engine="echo") as server, httpx.Client(timeout=PATIENCE) as client:
            body = FOREVER | {"n": 16, "stream": True}
            with client.stream("POST", f"{server.url}/v1/completions", json=body) as full:
                lines = full.iter_lines()  # closing the iterator closes the connection
                first_piece(lines)
                refused = server.post("/v1/completions", {"prompt": "abc"})
                assert refused.status_code == 429
                assert refused.headers["retry-after"] == "60"  # nothing has ended yet: nobody knows
                assert "60 s" in refused.json()["error"]["message"]
                assert refused.json()["error"]["type"] == "rate_limit_error"
            wait_until(lambda: server.metric("vllm:num_requests_running") == 0, "the requests are aborted")
            assert server.post("/v1/completions", {"prompt": "abc", "max_tokens": 2}).status_code == 200

    def test_it_says_when_to_come_back_by_how_fast_requests_end(self, slow_model):
        with running_server(slow_model, engine="echo") as server, httpx.Client(timeout=PATIENCE) as client:
            for _ in range(3):
                assert server.post("/v1/completions", {"prompt": "abc", "max_tokens": 2}).status_code == 200
            with client.stream(
                "POST", f"{server.url}/v1/completions", json=FOREVER | {"n": 16, "stream": True}
            ) as full:
                lines = full.iter_lines()
                first_piece(lines)
                refused = server.post("/v1/completions", {"prompt": "abc"})
            # Two requests ended since the first, in well below ten seconds; fifteen wait.
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["retry-after"]) < 60
            wait_until(lambda: server.metric("vllm:num_requests_running") == 0, "the requests are aborted")
            assert server.post("/v1/completions", {"prompt": "abc", "max_tokens": 2}).status_code == 200

    def test_more_than_ever_fits_is_a_bad_request(self, slow_model):
        with running_server(slow_model, engine="echo") as server:
            answer = server.post("/v1/completions", {"prompt": ["a"] * 9, "n": 2})
            assert answer.status_code == 400
            assert "at most 16" in answer.json()["error"]["message"]


class TestKeys:
    def test_only_probes_go_without(self, echo_model, tmp_path):
        keys = tmp_path / "keys"
        keys.write_text("first-key\n\nsecond-key\n")
        options = ["--api-key-file", str(keys), "--served-model-name", "echo"]
        with running_server(echo_model(), *options, engine="echo") as server:
            for key in ("first-key", "second-key"):
                assert server.client(key).models.list().data[0].id == "echo"
            for key in ("wrong", "first-ke", "first-key second-key"):
                with pytest.raises(openai.AuthenticationError, match="valid API key") as error:
                    server.client(key).models.list()
                assert error.value.code == "invalid_api_key"
            for path in ("/v1/models", "/metrics", "/tokenize", "/nothing"):
                assert server.get(path).status_code == 401
            for path in ("/health", "/ready", "/version"):
                assert server.get(path).status_code == 200
            assert "first-key" not in server.log.read_text()


class TestSignals:
    def test_sigterm_answers_what_was_taken_takes_no_more_and_exits_0(self, slow_model):
        with running_server(slow_model, "--log-format", "json", engine="echo") as server, ThreadPoolExecutor() as pool:
            answer = pool.submit(server.post, "/v1/completions", {"prompt": "abc", "max_tokens": 400})
            wait_until(lambda: server.metric("vllm:num_requests_running") == 1, "the request runs")
            engine = server.engine
            server.terminate()
            wait_until(lambda: server.get("/ready").status_code == 503, "the server says that it drains")
            assert server.get("/ready").json()["reason"] == "draining"
            refused = server.post("/v1/completions", {"prompt": "abc"})
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert answer.result().json()["usage"]["completion_tokens"] == 400
            assert server.wait_end() == 0
            assert gone(engine)
            records = [json.loads(line) for line in server.lines if not line.startswith("ready ")]
            (answered,) = [record for record in records if record.get("status") == 200 and "request_id" in record]
            assert answered["finish_reasons"] == ["length"]
            assert [record["line"] for record in records if record["event"] == "engine"] == ["loaded"]

    def test_a_second_sigterm_exits_at_once(self, slow_model):
        with running_server(slow_model, engine="echo") as server:
            url, body = f"{server.url}/v1/completions", FOREVER | {"stream": True}
            with httpx.stream("POST", url, json=body, timeout=PATIENCE) as endless:
                lines = endless.iter_lines()
                first_piece(lines)
                engine = server.engine
                server.terminate()
                wait_until(lambda: server.get("/ready").status_code == 503, "the server drains")
                server.terminate()
                assert server.wait_end() == 1
                wait_until(lambda: gone(engine), "the engine ends")

    def test_a_sigterm_while_the_engine_loads_exits_0(self, echo_model):
        with started_server(echo_model(load_seconds=60), engine="echo") as server:
            wait_until(lambda: bool(psutil.Process(server.process.pid).children()), "the engine is started")
            server.terminate()
            assert server.wait_end() == 0


class TestEngineDies:
    def test_clients_hear_of_it_and_the_server_exits_1_with_the_reason(self, echo_model):
        model = echo_model(step_seconds=0.001, die_after_tokens=20, max_model_len=10_000)
        with running_server(model, "--served-model-name", "echo", engine="echo") as server, server.client() as client:
            stream = client.completions.create(model="echo", prompt="abc", max_tokens=5000, stream=True)
            with pytest.raises(openai.APIError, match="exit status 7"):
                for _ in stream:
                    pass
            assert server.wait_end() == 1
            assert any("engine gone" in line and "exit status 7" in line for line in server.lines)

    def test_a_killed_engine_is_explained(self, echo_model):
        with running_server(echo_model(), engine="echo") as server:
            os.kill(server.engine.pid, signal.SIGKILL)
            assert server.wait_end() == 1
            assert any("SIGKILL" in line and "memory" in line for line in server.lines)

    def test_an_engine_that_refuses_the_model_is_one_line_and_exit_2(self, echo_model):
        model = echo_model(refuse=["Too little memory: 3 GB are free.", "Lower --max-model-len to 512."])
        with started_server(model, engine="echo") as server:
            assert server.wait_end() == 2
            expected = "slipway-serve: error: Too little memory: 3 GB are free. Lower --max-model-len to 512."
            assert server.lines == [expected]


class TestLoading:
    def test_probes_are_answered_and_requests_are_told_to_wait(self, echo_model):
        with started_server(echo_model(load_seconds=60), "--port", "0", engine="echo") as server:
            url = f"http://127.0.0.1:{listening_port(server.process.pid)}"
            assert httpx.get(f"{url}/health").status_code == 200
            ready = httpx.get(f"{url}/ready")
            assert (ready.status_code, ready.json()["reason"]) == (503, "loading")
            assert httpx.post(f"{url}/v1/completions", json={"prompt": "a"}).status_code == 503
            assert server.url is None


def listening_port(pid: int) -> int:
    """The port of a server that has not said `ready` yet, once it answers."""
    ports: list[int] = []

    def answers() -> bool:
        listening = [c for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        ports[:] = [connection.laddr.port for connection in listening]
        try:
            return bool(ports) and httpx.get(f"http://127.0.0.1:{ports[0]}/health", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    wait_until(answers, "the server listens")
    return ports[0]
