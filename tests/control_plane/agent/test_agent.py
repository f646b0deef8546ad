"""The agent by itself: what it needs, whom it believes, and that bytes do not wait for the control plane."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response

from control_plane.agent.__main__ import main
from control_plane.agent.client import CA_FILE, BadSetup, ControlPlane, check_url
from control_plane.agent.protocol import End
from control_plane.agent.work import AgentOptions, fetch
from control_plane.downloads.retry import Backoff
from tests.control_plane.downloads.conftest import QUICK
from tests.hub import HubServer, models
from tests.support.https import Certificate, make_certificate, served
from tests.support.slipway import free_port

TOKEN = "the-agent-s-token"
SOON = Backoff(attempts=200, first_s=0.05, longest_s=0.1)
OPTIONS = AgentOptions(transfer=QUICK, report_interval_s=0.05, job_backoff=SOON, end_backoff=SOON)


class Desk:
    """A control plane of one job: answers as the real one does, and writes down what it is told."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, self.reports, self.statuses = job, list[dict[str, Any]](), list[int]()
        self.cancel = False
        self.heard = threading.Event()
        self.app = FastAPI()
        self.app.get("/job", response_model=None)(self.give)
        self.app.post("/job", response_model=None)(self.hear)

    def give(self, request: Request) -> Response | dict[str, Any]:
        return self._refusal(request) or self.job

    async def hear(self, request: Request) -> Response | dict[str, Any]:
        told = await request.json()
        if refusal := self._refusal(request):
            return refusal
        self.reports.append(told)
        self.heard.set()
        return {"cancel": self.cancel}

    def _refusal(self, request: Request) -> Response | None:
        if self.statuses:
            return Response(status_code=self.statuses.pop(0), headers={"Location": "/elsewhere"})
        if request.headers["Authorization"] != f"Bearer {TOKEN}":
            return Response(status_code=401)
        return None


@pytest.fixture
def desk(hub: HubServer, tmp_path: Path) -> Desk:
    sha = hub.add_repo("org/big", models.big_model(tmp_path / "model", 1 << 20))
    files = hub.repositories["org/big"].commits[sha].files.values()
    listing = [
        {"path": f.path, "size": f.size, "etag": f.etag, "sha256": f.sha256} for f in files if f.path != "README.md"
    ]
    job = {"endpoint": hub.url, "model": "org/big", "commit_sha": sha, "files": listing, "revisions": ["main"]}
    return Desk(job | {"hub_token": None, "offline": False})


@contextmanager
def at(desk: Desk, port: int | None = None, certificate: Certificate | None = None) -> Iterator[str]:
    with served(desk.app, port or free_port(), certificate) as url:
        yield f"{url}/job"


def run(url: str, cache: Path, token: str = TOKEN) -> End | None:
    async def work() -> End | None:
        async with ControlPlane(url, token, timeout_s=2) as control_plane:
            return await fetch(control_plane, cache, OPTIONS)

    return asyncio.run(work())


def test_it_needs_neither_a_database_nor_a_web_framework() -> None:
    heavy = ["sqlalchemy", "sqlmodel", "celery", "fastapi", "pydantic", "huggingface_hub", "httpx2", "torch"]
    program = (
        "import sys, control_plane.agent.__main__\n"
        f"print([name for name in {heavy!r} if name in sys.modules] + [m for m in sys.modules if '.tables' in m])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_fetches_reports_and_says_where(desk: Desk, tmp_path: Path) -> None:
    with at(desk) as url:
        end = run(url, tmp_path / "hub")
    assert end is not None
    assert end.path is not None
    for file in desk.job["files"]:
        assert (Path(end.path) / file["path"]).read_bytes() == (tmp_path / "model" / file["path"]).read_bytes()
    assert (tmp_path / "hub" / "models--org--big" / "refs" / "main").read_text() == desk.job["commit_sha"]
    last = desk.reports[-1]
    assert last["end"]["path"] == end.path
    assert last["bytes_done"] == sum(file["size"] for file in desk.job["files"])
    told: dict[str, Any] = {}
    for report in desk.reports:
        told |= report["files"]
    assert told == {file["path"]: {"bytes_done": file["size"], "state": "done"} for file in desk.job["files"]}


def test_a_control_plane_that_is_away_costs_no_byte(desk: Desk, hub: HubServer, tmp_path: Path) -> None:
    hub.faults.rate(400_000, "/cdn/*")
    port, results = free_port(), list[End | None]()
    with ExitStack() as stack:
        url = stack.enter_context(at(desk, port))
        agent = threading.Thread(target=lambda: results.append(run(url, tmp_path / "hub")))
        agent.start()
        assert desk.heard.wait(30)
        stack.close()
        sent = hub.bytes_sent("padding.safetensors")
        hub.wait_until(lambda: hub.bytes_sent("padding.safetensors") > sent + 100_000)
        hub.faults.clear()
        desk.statuses[:] = [503, 500]
        with at(desk, port):
            agent.join(60)
    assert results
    assert results[0] is not None
    assert desk.reports[-1]["end"]["path"] == results[0].path


def test_it_stops_when_it_is_told_or_replaced(desk: Desk, hub: HubServer, tmp_path: Path) -> None:
    hub.faults.rate(100_000, "/cdn/*")
    with at(desk) as url:
        desk.cancel = True
        assert run(url, tmp_path / "hub") is None
        assert run(url, tmp_path / "hub", token="another-boot-s") is None
    assert all(report["end"] is None for report in desk.reports)
    assert hub.bytes_sent("padding.safetensors") < 1 << 20


@pytest.mark.parametrize(("status", "transient"), [(500, True), (404, False)])
def test_what_the_hub_answers_is_told(
    desk: Desk, hub: HubServer, tmp_path: Path, *, status: int, transient: bool
) -> None:
    hub.faults.error(status, "*/padding.safetensors", times=None)
    with at(desk) as url:
        end = run(url, tmp_path / "hub")
    assert end is not None
    assert (end.path, end.transient) == (None, transient)
    assert desk.reports[-1]["end"]["reason"] == end.reason
    assert end.reason
    assert end.next_step


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"files": [{"path": "../../etc/passwd", "size": 1, "etag": "e"}]}, "a commit or a path that is none"),
        ({"commit_sha": "main"}, "a commit or a path that is none"),
        ({"files": None}, "is not understood"),
    ],
)
def test_a_job_that_is_none_is_refused(desk: Desk, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    desk.job |= change
    with at(desk) as url, pytest.raises(BadSetup, match=words):
        run(url, tmp_path / "hub")


def test_redirects_are_refused(desk: Desk, tmp_path: Path) -> None:
    desk.statuses[:] = [307]
    with at(desk) as url, pytest.raises(BadSetup, match="redirects to '/elsewhere'"):
        run(url, tmp_path / "hub")


@pytest.mark.parametrize("url", ["http://slipway.example.org/job", "http://192.0.2.1/job", "ftp://127.0.0.1/", "x", ""])
def test_a_token_does_not_travel_in_clear_text(url: str) -> None:
    with pytest.raises(BadSetup):
        check_url(url)


def test_certificates_are_checked(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mine, other = make_certificate(tmp_path / "mine"), make_certificate(tmp_path / "other")
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with at(desk, certificate=mine) as url:
        argv = ["--job-url", url, "--token-file", str(token), "--cache", str(tmp_path / "hub")]
        for ca_file in (None, other.authority, tmp_path / "none.pem"):
            monkeypatch.delenv(CA_FILE, raising=False)
            if ca_file:
                monkeypatch.setenv(CA_FILE, str(ca_file))
            assert main(argv) == 2
            assert CA_FILE in capfd.readouterr().err
        assert desk.reports == []
        monkeypatch.setenv(CA_FILE, str(mine.authority))
        assert main(argv) == 0
    assert desk.reports[-1]["end"]["path"]


@pytest.mark.parametrize("content", [None, "", " \n", "\x00\x01"])
def test_without_a_token_it_does_not_begin(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: str | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    assert main(["--job-url", "https://127.0.0.1:1/", "--token-file", str(path)]) == 2
    assert "token" in capfd.readouterr().err
