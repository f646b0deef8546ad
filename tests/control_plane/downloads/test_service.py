"""Who asks for a download, who shares it, who may cancel it, and what a person is shown of it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.downloads import service
from control_plane.downloads.schemas import DownloadProgress
from control_plane.downloads.tables import Download, DownloadState
from control_plane.errors import Invalid
from tests.control_plane.downloads.conftest import Desk, Published


def progress_of(desk: Desk, download: Download) -> DownloadProgress:
    with desk.database.reading() as session:
        found = service.find_progress(session, desk.context, download.id)
        assert found is not None
        return found


def change(desk: Desk, download: Download, **values: object) -> None:
    with desk.database.transaction() as session:
        row = session.get(Download, download.id)
        for name, value in values.items():
            setattr(row, name, value)
        session.add(row)


def test_a_new_download_lists_its_files_and_sends_a_hint_after_the_commit(desk: Desk, big: Published) -> None:
    with desk.database.transaction() as session:
        download = service.ensure_download(
            session,
            desk.context,
            endpoint=big.hub.url,
            model="org/big",
            commit_sha=big.sha,
            files=big.listing,
        )
        assert desk.hints == []
    assert desk.hints == [("downloads.run", download.id)]
    row = desk.row(download)
    assert (row.state, row.bytes_done) == (DownloadState.QUEUED, 0)
    assert row.bytes_total == sum(file.size for file in big.wanted)
    assert [file.path for file in desk.files(download)] == [file.path for file in big.wanted]


def test_instances_of_one_commit_share_one_download(desk: Desk, big: Published) -> None:
    first, second = desk.ensure(big), desk.ensure(big)
    assert first.id == second.id
    assert desk.hints == [("downloads.run", first.id)]
    desk.run(first)
    third = desk.ensure(big)
    assert (third.id, third.state) == (first.id, DownloadState.DONE)
    assert big.hub.bytes_sent() == sum(file.size for file in big.wanted)


def test_two_transactions_at_once_make_one_download(desk: Desk, big: Published) -> None:
    start, made, errors = threading.Barrier(4), set(), []

    def ask() -> None:
        start.wait()
        try:
            made.add(desk.ensure(big).id)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(made) == 1
    assert len(desk.hints) == 1


def test_what_cannot_be_served_is_refused_before_anything_is_stored(desk: Desk, big: Published) -> None:
    with pytest.raises(Invalid, match=r"no \*\.safetensors"):
        desk.ensure(big, [file for file in big.listing if file.path == "config.json"])
    with pytest.raises(Invalid, match="not a commit SHA"):
        desk.ensure(replace(big, sha="main"), big.listing)
    with pytest.raises(Invalid, match="not a model id"):
        desk.ensure(replace(big, model="../etc"), big.listing)
    assert desk.hints == []


def test_a_failed_download_is_queued_again_by_the_next_who_asks(desk: Desk, big: Published) -> None:
    big.hub.faults.error(404, "*/config.json", headers={"X-Error-Code": "EntryNotFound"})
    failed = desk.run(desk.ensure(big))
    assert failed.state == DownloadState.FAILED
    assert failed.finished_at == desk.clock.now()
    desk.clock.advance(100)
    again = desk.row(desk.ensure(big))
    assert (again.id, again.state, again.reason, again.finished_at) == (failed.id, DownloadState.QUEUED, None, None)
    assert desk.run(again).state == DownloadState.DONE


def test_a_finished_download_whose_files_have_vanished_is_fetched_again(desk: Desk, big: Published) -> None:
    done = desk.run(desk.ensure(big))
    assert done.path is not None
    blob = (Path(done.path) / "padding.safetensors").resolve()
    size = blob.stat().st_size
    blob.unlink()
    big.hub.forget()
    assert desk.ensure(big).state == DownloadState.QUEUED
    again = desk.run(done)
    big.assert_equal(Path(again.path or ""))
    assert big.hub.bytes_sent() == size


def test_a_cache_that_has_moved_is_found_again(desk: Desk, big: Published) -> None:
    done = desk.run(desk.ensure(big))
    change(desk, done, path="/where/it/was/before")
    desk.hints.clear()
    assert desk.ensure(big).state == DownloadState.DONE
    assert desk.row(done).path == done.path
    assert desk.hints == []


def test_a_waiting_download_is_cancelled_when_the_last_instance_gives_up(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    first, second = desk.instance(download, "first"), desk.instance(download, "second")
    assert desk.give_up(first, download) is False
    assert desk.row(download).state == DownloadState.QUEUED
    assert desk.give_up(second, download) is True
    row = desk.row(download)
    assert (row.state, row.finished_at) == (DownloadState.CANCELLED, desk.clock.now())
    assert "no instance wants it" in (row.reason or "")
    assert desk.run(download).state == DownloadState.CANCELLED
    assert big.hub.requests == []
    assert desk.ensure(big).state == DownloadState.QUEUED


def test_a_finished_download_cannot_be_cancelled(desk: Desk, big: Published) -> None:
    download = desk.run(desk.ensure(big))
    assert desk.give_up(desk.instance(download, "only"), download) is False
    assert desk.row(download).state == DownloadState.DONE


def test_the_sweep_hints_at_what_waits_and_at_what_a_dead_worker_left(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    desk.hints.clear()
    assert service.sweep(desk.context) == [download.id]
    assert desk.hints == [("downloads.run", download.id)]
    now = desk.clock.now()
    change(desk, download, state=DownloadState.DOWNLOADING, lease_token=download.id, lease_expires_at=now)
    assert service.sweep(desk.context) == []
    desk.clock.advance(1)
    assert service.sweep(desk.context) == [download.id]
    change(desk, download, lease_token=None, next_attempt_at=desk.clock.now())
    assert service.sweep(desk.context) == [download.id]
    change(desk, download, state=DownloadState.FAILED)
    assert service.sweep(desk.context) == []


def test_progress_says_rate_and_time_left_and_when_it_stalls(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    total = download.bytes_total or 0
    change(
        desk,
        download,
        state=DownloadState.DOWNLOADING,
        started_at=desk.clock.now(),
        progress_at=desk.clock.now(),
        bytes_done=total - 500_000,
        bytes_per_s=250_000.0,
    )
    moving = progress_of(desk, download)
    assert (moving.bytes_done, moving.bytes_total, moving.bytes_per_s, moving.eta_s) == (
        total - 500_000,
        total,
        250_000.0,
        2.0,
    )
    assert (moving.stalled, moving.stalled_for_s) == (False, None)
    assert [file.path for file in moving.files] == [file.path for file in big.wanted]

    desk.clock.advance(14)
    assert progress_of(desk, download).stalled is False
    desk.clock.advance(6)
    still = progress_of(desk, download)
    assert (still.stalled, still.stalled_for_s, still.bytes_per_s, still.eta_s) == (True, 20.0, 0.0, None)
    assert still.reason == "stalled for 20 s: retrying"
    change(desk, download, reason="http://hub answered with status 503")
    assert progress_of(desk, download).reason == "stalled for 20 s: retrying (http://hub answered with status 503)"
    for state in (DownloadState.VERIFYING, DownloadState.DONE, DownloadState.FAILED, DownloadState.CANCELLED):
        change(desk, download, state=state)
        assert progress_of(desk, download).stalled is False


def test_a_download_that_no_worker_takes_up_says_so(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    assert progress_of(desk, download).stalled is False
    desk.clock.advance(30)
    waiting = progress_of(desk, download)
    assert waiting.stalled
    assert waiting.reason == "waiting for a worker for 30 s"
