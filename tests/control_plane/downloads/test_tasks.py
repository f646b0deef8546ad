"""The Celery entry points, as a worker process calls them."""

from __future__ import annotations

import threading

import pytest
from celery.signals import worker_shutting_down

from control_plane.celery_app import celery_app
from control_plane.downloads import service, tasks
from control_plane.downloads.tables import DownloadState
from tests.control_plane.downloads.conftest import Desk, Published


@pytest.fixture
def process(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """This process is a worker on the test's database."""
    monkeypatch.setattr(tasks, "get_context", lambda: desk.context)
    monkeypatch.setattr(tasks, "_shutdown", threading.Event())
    return desk


def test_the_tasks_go_by_their_names(process: Desk, big: Published) -> None:
    download = process.ensure(big)
    process.hints.clear()
    celery_app.tasks["downloads.sweep"]()
    assert process.hints == [("downloads.run", download.id)]
    celery_app.tasks["downloads.run"](str(download.id))
    assert process.row(download).state == DownloadState.DONE


def test_an_agent_is_looked_after_by_a_task_of_its_own(process: Desk, big: Published) -> None:
    with process.database.transaction() as session:
        download = service.ensure_download(
            session,
            process.context,
            endpoint=big.hub.url,
            model=big.model,
            commit_sha=big.sha,
            files=big.listing,
            place=service.Place("elsewhere", "gone", "gone-gpu"),
        )
    process.hints.clear()
    celery_app.tasks["downloads.sweep"]()
    assert process.hints == [("downloads.drive", download.id)]
    celery_app.tasks["downloads.drive"](str(download.id))
    assert process.row(download).reason == "provider 'gone' is not configured"


def test_a_process_with_its_hands_full_leaves_a_download_to_the_sweep(
    process: Desk, big: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = process.ensure(big)
    busy = threading.BoundedSemaphore(1)
    monkeypatch.setattr(tasks, "_running", busy)
    with busy:
        tasks.run(str(download.id))
        assert process.row(download).state == DownloadState.QUEUED
    tasks.run(str(download.id))
    assert process.row(download).state == DownloadState.DONE


def test_a_worker_that_is_asked_to_end_lets_go_of_its_downloads(process: Desk, big: Published) -> None:
    download = process.ensure(big)
    big.hub.faults.rate(500_000, "/cdn/*")
    runner = threading.Thread(target=tasks.run, args=(str(download.id),))
    runner.start()
    big.hub.wait_until(lambda: big.hub.bytes_sent() > 100_000)
    worker_shutting_down.send(sender="test", sig="TERM", how="Warm", exitcode=0)
    runner.join(20)
    assert not runner.is_alive()
    row = process.row(download)
    assert (row.state, row.lease_token) == (DownloadState.QUEUED, None)
    assert row.bytes_done > 0
