"""SIGKILL of every process, each during a download and during a stream: the system finishes what it was doing, and
says what happened. Once with the embedded defaults, once on PostgreSQL and an external Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
from openai import APIError, OpenAI
from sqlalchemy import create_engine, text

from tests.hub import models
from tests.hub.server import HubServer
from tests.support.processes import alive, eventually, family
from tests.support.slipway import RunningSlipway
from tests.support.slipway import slipway_up as running_slipway

pytestmark = pytest.mark.alone

#: Bytes per second: too slow to finish before every process has been killed.
RATE = 200_000
#: Bytes that may be on their way, sent but not yet written, when a process is killed (seen: 30,000).
IN_FLIGHT = 300_000
#: Answers at once of a stream that must not end before a process is killed: more than sockets hold, 13 MB in all. 900
#: tokens of a single answer are done in less time than a busy machine takes to kill something.
ENDLESS = 64


@dataclass
class Stream:
    """Long answers of the starter, read by the official client in a thread."""

    slipway: RunningSlipway
    answers: int = 8
    words: list[str] = field(default_factory=list)
    error: Exception | None = None
    finished: bool = False

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        eventually(lambda: self.words or self.over, "the stream begins", 30)

    @property
    def over(self) -> bool:
        return self.finished or self.error is not None

    def _read(self) -> None:
        starter = self.slipway.instance("starter")
        client = OpenAI(base_url=starter["api_url"], api_key=self.slipway.api_key, max_retries=0, timeout=60)
        try:
            for chunk in client.completions.create(
                model=starter["model"],
                prompt="Hello",
                max_tokens=900,
                n=self.answers,
                stream=True,
                extra_body={"ignore_eos": True},
            ):
                self.words.append(chunk.choices[0].text if chunk.choices else "")
            self.finished = True
        except (APIError, httpx.HTTPError) as error:
            self.error = error


@pytest.fixture(scope="module", params=["embedded", "postgresql-redis"])
def slipway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, session_hub: HubServer
) -> Iterator[RunningSlipway]:
    environment = {}
    if request.param == "postgresql-redis":
        server, name = request.getfixturevalue("postgres_server"), f"e2e_{uuid4().hex[:8]}"
        engine = create_engine(server.format(database="postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        environment = {
            "SLIPWAY_DATABASE_URL": server.format(database=name),
            "SLIPWAY_BROKER_URL": request.getfixturevalue("redis_server"),
        }
    folder = tmp_path_factory.mktemp(request.param)
    with running_slipway(folder / "data", session_hub, environment=environment) as running:
        yield running


@pytest.fixture
def starter(slipway: RunningSlipway) -> dict[str, object]:
    """The starter, running: the test before may have killed the engine under it."""
    return slipway.wait_for_phase("starter", "running")


def kill(slipway: RunningSlipway, *names: str) -> None:
    """SIGKILL processes that the supervisor watches, and wait until they are back."""
    before = slipway.processes()
    slipway.kill(*names)
    slipway.wait_until_back({name: before[name].restarts + 1 for name in names})


def test_a_download_survives_the_death_of_every_process(
    slipway: RunningSlipway, hub: HubServer, tmp_path: Path
) -> None:
    name = uuid4().hex[:8]
    folder = models.tiny_llama(tmp_path / "model", hidden_size=512, intermediate_size=2048, num_hidden_layers=3)
    total = (folder / "model.safetensors").stat().st_size
    hub.add_repo(f"kill/{name}", folder)
    hub.forget()
    hub.faults.rate(RATE, "/cdn/*")
    slipway.api("POST", "/instances", json={"model": f"kill/{name}", "name": name})
    slipway.wait_for_phase(name, "downloading")

    for process in ("worker", "scheduler", "web", "local-host"):
        already = hub.bytes_sent("model.safetensors")
        eventually(lambda at=already: hub.bytes_sent("model.safetensors") > at, "the download moves", 40)
        kill(slipway, process)
        assert slipway.instance(name)["phase"] == "downloading", "the test must kill during the download"

    hub.faults.clear()
    instance = slipway.wait_for_phase(name, "running")
    assert hub.bytes_sent("model.safetensors") <= total + IN_FLIGHT
    assert instance["download"]["bytes_done"] == instance["download"]["bytes_total"]
    slipway.cli("rm", "--yes", name)


@pytest.mark.usefixtures("starter")
def test_a_stream_survives_what_it_does_not_pass_through(slipway: RunningSlipway) -> None:
    before = slipway.processes()
    stream = Stream(slipway)
    slipway.kill("worker", "scheduler")
    assert not stream.over
    slipway.wait_until_back({name: before[name].restarts + 1 for name in ("worker", "scheduler")})
    eventually(lambda: stream.over, "the stream ends", 60)
    assert stream.error is None
    assert len(stream.words) > 100


@pytest.mark.usefixtures("starter")
def test_a_killed_web_breaks_its_streams_and_serves_the_next(slipway: RunningSlipway) -> None:
    stream = Stream(slipway)
    slipway.kill("web")
    # Asked while there is no web: the listening socket is the supervisor's, so this waits instead of being refused.
    again = Stream(slipway)
    eventually(lambda: again.over, "the next stream ends", 60)
    assert again.error is None
    assert stream.over


def test_a_killed_engine_is_told_to_the_client_and_comes_back(
    slipway: RunningSlipway, starter: dict[str, object]
) -> None:
    engine = _engine_of(slipway, starter)
    stream = Stream(slipway, ENDLESS)
    for process in engine:
        process.kill()
    eventually(lambda: stream.over, "the client is told", 30)
    assert stream.error is not None
    _wait_for_another_boot(slipway, starter)
    assert Stream(slipway).words
    messages = " / ".join(event["message"] for event in _timeline(slipway, starter))
    assert "SIGKILL" in messages or "-9" in messages


def test_a_killed_local_host_takes_its_engines_along_and_they_come_back(
    slipway: RunningSlipway, starter: dict[str, object]
) -> None:
    engine = _engine_of(slipway, starter)
    stream = Stream(slipway, ENDLESS)
    kill(slipway, "local-host")
    eventually(lambda: not alive(engine), "the engines end with their host", 10)
    eventually(lambda: stream.over, "the client is told", 30)
    _wait_for_another_boot(slipway, starter)
    assert Stream(slipway).words


def _engine_of(slipway: RunningSlipway, instance: dict[str, object]) -> list[psutil.Process]:
    """The processes that serve an instance: the one that listens where its replica is, and its children."""
    port = int(str(instance["direct_url"]).rpartition(":")[2].partition("/")[0])
    (server,) = [
        process
        for process in family(slipway.process.pid)
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in process.net_connections("tcp"))
    ]
    return family(server.pid)


def _wait_for_another_boot(slipway: RunningSlipway, before: dict[str, object]) -> None:
    """Until the instance runs again, and not still."""

    def again() -> bool:
        now = slipway.instance(str(before["name"]))
        return now["phase"] == "running" and now["since"] != before["since"]

    eventually(again, f"{before['name']} runs again", 90)


def _timeline(slipway: RunningSlipway, instance: dict[str, object]) -> list[dict[str, str]]:
    return list(slipway.api("GET", f"/instances/{instance['id']}/events")["items"])


def test_sigkill_of_the_supervisor_leaves_nothing_and_the_next_up_carries_on(tmp_path: Path, hub: HubServer) -> None:
    data_dir = tmp_path / "data"
    with running_slipway(data_dir, hub) as slipway:
        starter = slipway.instance("starter")
        everything = family(slipway.process.pid)
        assert len(everything) >= 8  # five processes, the supervisor, an engine of two
        slipway.process.kill()
        slipway.process.wait(10)  # its threads may outlive the moment in which it looks dead
        eventually(lambda: not alive(everything), "every process ends", 10)
    with running_slipway(data_dir, hub) as slipway:
        assert slipway.instance("starter")["id"] == starter["id"]
        assert slipway.instance("starter")["phase"] == "running"
        everything = family(slipway.process.pid)
        down = slipway.cli("down")
        assert down.returncode == 0, down.stderr
        assert alive(everything) == []
        assert slipway.cli("status").returncode == 3
