"""What the server says, and does, when the engine is slow, stuck, stopped or held by native code."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from serving_image.cli import parse_options
from serving_image.errors import StartupError
from tests.serving_image.serving import PATIENCE, RunningServer, running_server, wait_until

BODY = {"prompt": "abc", "max_tokens": 8, "ignore_eos": True}


def status_of(server: RunningServer, path: str) -> tuple[int, str | None]:
    """The status of a probe and the reason in it; status 0 when the server has closed its port."""
    try:
        answer = server.get(path)
    except httpx.TransportError:
        return 0, None
    return answer.status_code, answer.json().get("reason")


def wait_for(server: RunningServer, path: str, status: int, reason: str | None) -> None:
    wait_until(lambda: status_of(server, path) == (status, reason), f"{path} says {status} {reason}")


def last_event(server: RunningServer, pool: ThreadPoolExecutor):
    """Ask for a stream; the future of its last event."""

    def read() -> str:
        with httpx.stream("POST", f"{server.url}/v1/completions", json=BODY | {"stream": True}, timeout=PATIENCE) as r:
            return [line for line in r.iter_lines() if line][-1]

    return pool.submit(read)


class TestStuckStep:
    def test_it_is_reported_then_ended_with_stacks_and_its_clients_are_told(self, echo_model):
        model = echo_model(stuck_at=3, stuck="sleeps")
        with running_server(model, "--stall-timeout", "4", engine="deviceless") as server, ThreadPoolExecutor() as pool:
            whole, streamed = pool.submit(server.post, "/v1/completions", BODY), last_event(server, pool)
            wait_for(server, "/health", 503, "stalled")
            assert status_of(server, "/ready") == (503, "stalled")
            refused = server.post("/v1/completions", BODY)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stalled")
            assert whole.result().status_code == 500
            assert "--stall-timeout" in whole.result().json()["error"]["message"]
            assert "--stall-timeout" in streamed.result()
            assert server.wait_end() == 1
            log = server.log.read_text()
            assert "_get_stuck" in log  # the stack of the device's thread
            assert "in step" in log  # and that of the main thread, which waits for it
            (line,) = [line for line in server.lines if "engine gone" in line]
            assert "no step ended" in line

    def test_a_step_that_is_only_slow_is_healthy(self, echo_model):
        model = echo_model(step_seconds=1.5)
        with running_server(model, "--stall-timeout", "8", engine="deviceless") as server, ThreadPoolExecutor() as pool:
            answer = pool.submit(server.post, "/v1/completions", BODY | {"max_tokens": 3})
            ages, without_progress = [], []
            while not answer.done():
                health = server.get("/health")
                assert health.status_code == 200
                ages.append(health.json()["engine_heartbeat_age_s"])
                without_progress.append(health.json()["engine_seconds_without_progress"])
            assert answer.result().status_code == 200
            # It spoke within its steps, and each of them was progress.
            assert max(ages) < 1.5
            assert 1 < max(without_progress) < 4


class TestSilentEngine:
    def test_a_stopped_engine_is_unhealthy_until_it_goes_on(self, echo_model):
        with running_server(echo_model(), "--stall-timeout", "6", engine="deviceless") as server:
            server.engine.suspend()
            wait_for(server, "/health", 503, "silent")
            assert status_of(server, "/ready") == (503, "silent")
            server.engine.resume()
            wait_for(server, "/health", 200, None)
            assert server.post("/v1/completions", BODY).status_code == 200

    def test_one_whose_interpreter_is_held_is_aborted_with_its_stacks(self, echo_model):
        model = echo_model(stuck_at=2, stuck="holds")
        with running_server(model, "--stall-timeout", "2", engine="deviceless") as server:
            engine = server.engine
            answer = server.post("/v1/completions", BODY)
            assert answer.status_code == 500
            assert "said nothing for 2 s" in answer.json()["error"]["message"]
            assert server.wait_end() == 1
            assert not psutil.pid_exists(engine.pid)
            assert "_get_stuck" in server.log.read_text()

    def test_one_that_stays_stopped_is_killed(self, echo_model):
        with running_server(echo_model(), "--stall-timeout", "1", engine="deviceless") as server:
            server.engine.send_signal(signal.SIGSTOP)
            assert server.wait_end() == 1
            assert any("engine gone" in line and "said nothing for 1 s" in line for line in server.lines)


class TestStallTimeout:
    def test_the_engine_gets_it(self):
        assert parse_options(["some/model", "--stall-timeout", "2.5"]).engine.stall_timeout == 2.5

    @pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", "soon"])
    def test_what_is_no_time_is_refused(self, value):
        with pytest.raises(StartupError, match="--stall-timeout"):
            parse_options(["some/model", "--stall-timeout", value])
