"""A worker and its row: claims, progress, retries, cancels, lost leases, and the death of a worker."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from huggingface_hub import snapshot_download

from control_plane.downloads.retry import Backoff
from control_plane.downloads.tables import Download, DownloadState
from control_plane.downloads.worker import DownloadWorker
from tests.control_plane.downloads.conftest import KIB, MIB, QUICK, Desk, Published
from tests.control_plane.downloads.test_service import change

PADDING = "padding.safetensors"
CDN = f"/cdn/*{PADDING}"


def size_of(published: Published, path: str) -> int:
    return next(file.size for file in published.wanted if file.path == path)


def test_a_download_ends_in_a_path_a_ref_and_a_hint_to_its_instances(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    instance = desk.instance(download, "mine")
    desk.hints.clear()
    done = desk.run(download)
    assert (done.state, done.reason, done.lease_token) == (DownloadState.DONE, None, None)
    assert done.bytes_done == done.bytes_total == sum(file.size for file in big.wanted)
    assert (done.started_at, done.finished_at) == (desk.clock.now(), desk.clock.now())
    big.assert_equal(Path(done.path or ""))
    assert {(f.state, f.bytes_total - f.bytes_done) for f in desk.files(download)} == {(DownloadState.DONE, 0)}
    assert desk.hints == [("instances.reconcile", instance)]
    cache = desk.settings.hub_cache
    assert snapshot_download("org/big", cache_dir=cache, local_files_only=True) == done.path


def test_progress_reaches_the_row_while_bytes_arrive(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    big.hub.faults.rate(1_500_000, CDN)
    with desk.running(download):
        big.hub.wait_until(lambda: desk.row(download).bytes_done > 500_000)
        row, files = desk.row(download), {file.path: file for file in desk.files(download)}
        big.hub.faults.clear()
    assert (row.state, row.progress_at) == (DownloadState.DOWNLOADING, desk.clock.now())
    assert row.lease_token is not None
    assert 0 < files[PADDING].bytes_done < files[PADDING].bytes_total
    assert files[PADDING].state == DownloadState.DOWNLOADING
    assert files["config.json"].state == DownloadState.DONE
    assert desk.row(download).state == DownloadState.DONE


def test_of_two_workers_one_downloads(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    big.hub.faults.rate(8_000_000, CDN)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(desk.running(download))
    assert desk.row(download).state == DownloadState.DONE
    assert big.hub.bytes_sent() == sum(file.size for file in big.wanted)


def test_a_dead_hub_is_tried_again_later_and_given_up_after_some_attempts(desk: Desk, big: Published) -> None:
    desk.options = replace(desk.options, backoff=Backoff(attempts=3, first_s=10, longest_s=60))
    download = desk.ensure(big)
    with big.hub.dead():
        row = desk.run(download)
        assert (row.state, row.attempts, row.lease_token) == (DownloadState.QUEUED, 1, None)
        assert "failed" in (row.reason or "")
        assert "attempt 2 of 3 follows" in (row.reason or "")
        assert row.next_attempt_at is not None
        assert row.next_attempt_at >= desk.clock.now() + timedelta(seconds=10)
        assert desk.run(download).attempts == 1, "not due yet"
        desk.clock.advance(20)
        assert desk.run(download).attempts == 2
        desk.clock.advance(60)
        failed = desk.run(download)
    assert failed.state == DownloadState.FAILED
    assert "given up after 3 attempts" in (failed.reason or "")
    assert "HF_ENDPOINT" in (failed.next_step or "")


def test_an_attempt_that_brought_bytes_starts_the_count_again(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    change(desk, download, attempts=4)
    big.hub.faults.error(503, CDN, times=None)
    row = desk.run(download)  # every other file arrives
    assert (row.state, row.attempts) == (DownloadState.QUEUED, 1)
    big.hub.faults.clear()
    desk.clock.advance(60)
    assert desk.run(download).state == DownloadState.DONE


def test_a_hub_that_asks_to_wait_is_obeyed(desk: Desk, big: Published) -> None:
    big.hub.faults.error(429, CDN, times=None, headers={"Retry-After": "600"})
    row = desk.run(desk.ensure(big))
    assert row.state == DownloadState.QUEUED
    assert row.next_attempt_at is not None
    assert row.next_attempt_at >= desk.clock.now() + timedelta(seconds=600)


def test_trouble_is_told_while_it_lasts(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    big.hub.faults.hang(CDN, times=None)
    desk.options = replace(
        desk.options, transfer=replace(QUICK, read_timeout_s=0.1, backoff=Backoff(1000, first_s=0.01, longest_s=0.01))
    )
    with desk.running(download):
        big.hub.wait_until(lambda: "has fallen silent" in (desk.row(download).reason or ""))
        big.hub.faults.clear()
    done = desk.row(download)
    assert (done.state, done.reason) == (DownloadState.DONE, None)


@pytest.mark.parametrize("silent", [False, True])
def test_a_cancelled_download_stops_at_once_and_can_be_taken_up_again(silent: bool, desk: Desk, big: Published) -> None:
    desk.options = replace(desk.options, transfer=replace(QUICK, read_timeout_s=600))
    download = desk.ensure(big)
    instance = desk.instance(download, "only")
    big.hub.faults.rate(1_000_000, CDN)
    if silent:
        big.hub.faults.hang(CDN, after=40 * KIB, times=None)
    with desk.running(download) as worker:
        big.hub.wait_until(lambda: desk.row(download).bytes_done > 100_000)
        assert desk.give_up(instance, download) is True
        worker.join(20)  # the hub may be silent for ten minutes; the worker does not wait for it
        assert not worker.is_alive()
    row = desk.row(download)
    assert (row.state, row.cancel_requested, row.lease_token) == (DownloadState.CANCELLED, False, None)
    big.hub.faults.clear()
    big.hub.forget()
    kept = row.bytes_done
    assert desk.ensure(big).state == DownloadState.QUEUED
    assert desk.run(download).state == DownloadState.DONE
    assert big.hub.bytes_sent() == sum(file.size for file in big.wanted) - kept


def test_a_cancel_that_is_taken_back_lets_the_download_go_on(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    change(desk, download, cancel_requested=True)
    desk.ensure(big)
    assert desk.run(download).state == DownloadState.DONE


def test_a_cancel_that_no_worker_saw_is_carried_out_by_the_next(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    change(desk, download, cancel_requested=True, state=DownloadState.DOWNLOADING)
    assert desk.run(download).state == DownloadState.CANCELLED
    assert big.hub.requests == []


def test_a_worker_that_lost_its_lease_stops_and_writes_nothing(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    big.hub.faults.rate(1_000_000, CDN)
    other = uuid4()
    with desk.running(download) as worker:
        big.hub.wait_until(lambda: desk.row(download).bytes_done > 100_000)
        change(desk, download, lease_token=other, reason="of the other worker", state=DownloadState.QUEUED)
        worker.join(20)
        assert not worker.is_alive()
        sent = big.hub.bytes_sent(PADDING)
    row = desk.row(download)
    assert (row.lease_token, row.reason, row.state) == (other, "of the other worker", DownloadState.QUEUED)
    assert sent < size_of(big, PADDING)


def test_a_worker_that_is_shut_down_leaves_the_rest_to_the_next(desk: Desk, big: Published) -> None:
    download = desk.ensure(big)
    big.hub.faults.rate(1_000_000, CDN)
    shutdown = threading.Event()
    with desk.running(download, shutdown):
        big.hub.wait_until(lambda: desk.row(download).bytes_done > 100_000)
        desk.hints.clear()
        shutdown.set()
    row = desk.row(download)
    assert (row.state, row.lease_token, row.attempts) == (DownloadState.QUEUED, None, 0)
    assert desk.hints == [("downloads.run", download.id)]
    big.hub.faults.clear()
    assert desk.run(download).state == DownloadState.DONE


def test_a_final_failure_says_what_to_do_and_tells_the_instances(desk: Desk, big: Published) -> None:
    big.hub.add_repo("org/big", big.folder, gated="manual")
    download = desk.ensure(big)
    instance = desk.instance(download, "mine")
    desk.hints.clear()
    failed = desk.run(download)
    assert failed.state == DownloadState.FAILED
    assert "gated" in (failed.reason or "")
    assert "HF_TOKEN" in (failed.next_step or "")
    assert desk.hints == [("instances.reconcile", instance)]


def test_the_token_is_used_with_its_own_hub_only(desk: Desk, big: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    big.hub.add_token("hf_mine")
    desk.run(desk.ensure(big))
    assert {request.authorization for request in big.hub.requests} == {None}
    monkeypatch.setenv("HF_ENDPOINT", big.hub.url)
    other = replace(big, model="org/other", sha=big.hub.add_repo("org/other", big.folder))
    big.hub.forget()
    desk.run(desk.ensure(other))
    assert "Bearer hf_mine" in {request.authorization for request in big.hub.requests}


def test_offline_fails_at_once(desk: Desk, big: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    failed = desk.run(desk.ensure(big))
    assert failed.state == DownloadState.FAILED
    assert "HF_HUB_OFFLINE" in (failed.reason or "")
    assert big.hub.requests == []


def test_after_a_sigkill_no_finished_byte_is_fetched_again(desk: Desk, database_url: str, big: Published) -> None:
    download = desk.ensure(big)
    big.hub.faults.rate(1_200_000, CDN)  # in chunks of 60 kB
    argv = [sys.executable, "-m", "tests.control_plane.downloads.run_worker", database_url, str(desk.data_dir)]
    worker = subprocess.Popen([*argv, str(download.id)])
    try:
        big.hub.wait_until(lambda: big.hub.bytes_sent(PADDING) > MIB, timeout=60)
    finally:
        worker.kill()
        worker.wait(10)
    left = desk.row(download)
    assert (left.state, left.lease_token is not None) == (DownloadState.DOWNLOADING, True)

    big.hub.faults.clear()
    assert left.lease_expires_at is not None
    desk.clock.advance((left.lease_expires_at - desk.clock.now()).total_seconds() - 1)
    assert desk.run(download).lease_token == left.lease_token, "the lease of the dead worker has not run out"
    desk.clock.advance(2)
    done = desk.run(download)
    assert done.state == DownloadState.DONE
    big.assert_equal(Path(done.path or ""))
    # Each of four connections was in the middle of a range of half a MiB. What was on the way when the worker died may
    # come twice (a chunk in its socket, and one that the hub sent before it noticed), and nothing else.
    size = size_of(big, PADDING)
    assert size <= big.hub.bytes_sent(PADDING) <= size + QUICK.connections * 2 * 60_000
    for file in big.wanted:
        assert file.path == PADDING or big.hub.bytes_sent(file.path) == file.size


def test_a_row_that_is_not_there_is_left_alone(desk: Desk) -> None:
    DownloadWorker(desk.context).run(uuid4())
    with desk.database.reading() as session:
        assert session.get(Download, uuid4()) is None
