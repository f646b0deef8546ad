"""A process is kept running, and ends when it should."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from control_plane.supervisor.backoff import Backoff
from control_plane.supervisor.child import Child, ChildFailed, ChildSpec, ChildState, describe_exit
from control_plane.supervisor.log_file import LogFile
from tests.control_plane.supervisor.children import DYING, PARENT, SLEEPER, STUBBORN, spec


class Heard(list[str]):
    """The lines that were reported."""


def child_of(spec: ChildSpec, folder: Path, heard: Heard | None = None) -> Child:
    log = LogFile(folder / "logs" / f"{spec.name}.log")
    report = (heard if heard is not None else Heard()).append
    return Child(spec, log, report=report, changed=lambda: None, backoff=Backoff(initial_s=0.01, maximum_s=0.05))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_killed_process_comes_back_and_is_told_of(tmp_path: Path) -> None:
    heard = Heard()
    child = child_of(spec(tmp_path, "one"), tmp_path, heard)

    async def scenario() -> None:
        await child.start(20)
        first = child.pid
        assert first is not None
        assert child.state == ChildState.READY
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.state == ChildState.READY and child.pid != first)
        assert child.restarts == 1
        assert child.last_exit_code == -signal.SIGKILL
        await child.stop()

    asyncio.run(scenario())
    assert child.state == ChildState.STOPPED
    assert child.pid is None
    assert len(heard) == 1
    assert "one killed by SIGKILL" in heard[0]


def test_it_leaves_nothing_in_its_process_group(tmp_path: Path) -> None:
    child = child_of(spec(tmp_path, "parent", PARENT), tmp_path)
    pid_file = tmp_path / "parent.pid.child"

    async def scenario() -> psutil.Process:
        await child.start(20)
        await until(lambda: pid_file.exists() and pid_file.read_text())
        grandchild = psutil.Process(int(pid_file.read_text()))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)
        await child.stop()
        return grandchild

    asyncio.run(scenario())


def test_one_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    child = child_of(spec(tmp_path, "stubborn", STUBBORN, grace_s=0.2), tmp_path)

    async def scenario() -> None:
        await child.start(20)
        await child.stop()

    asyncio.run(scenario())
    assert child.last_exit_code == -signal.SIGKILL
    assert child.state == ChildState.STOPPED


def test_one_that_cannot_start_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    child = child_of(spec(tmp_path, "dying", DYING), tmp_path)

    async def scenario() -> ChildFailed:
        with pytest.raises(ChildFailed) as failure:
            await child.start(20)
        await child.stop()
        return failure.value

    failure = asyncio.run(scenario())
    assert str(failure) == "dying does not start: exited with code 7"
    assert failure.log.tail(1) == ["no luck today"]


def test_one_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    async def never(_pid: int) -> bool:
        return False

    child = child_of(replace(spec(tmp_path, "slow"), ready=never), tmp_path)

    async def scenario() -> None:
        with pytest.raises(ChildFailed, match=r"slow was not ready after 0\.2 s"):
            await child.start(0.2)
        assert child.state == ChildState.STARTING
        await child.stop()

    asyncio.run(scenario())
    assert child.pid is None


def test_a_program_that_does_not_exist_is_an_early_death(tmp_path: Path) -> None:
    missing = replace(spec(tmp_path, "missing"), argv=("/does/not/exist",))
    child = child_of(missing, tmp_path)

    async def scenario() -> None:
        with pytest.raises(ChildFailed, match="exited with code 127"):
            await child.start(20)
        await child.stop()

    asyncio.run(scenario())
    assert "/does/not/exist" in child.log.tail(1)[0]


def test_the_terminals_interrupt_does_not_reach_it(tmp_path: Path) -> None:
    child = child_of(spec(tmp_path, "one", SLEEPER), tmp_path)

    async def scenario() -> None:
        await child.start(20)
        assert child.pid is not None
        assert os.getpgid(child.pid) == child.pid
        await child.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "exited with code 0"), (3, "exited with code 3"), (-9, "killed by SIGKILL"), (-63, "killed by signal 63")],
)
def test_exit_codes_are_said_in_words(code: int, text: str) -> None:
    assert describe_exit(code) == text


def test_the_delay_doubles_to_its_maximum_and_a_healthy_life_resets_it() -> None:
    backoff = Backoff(initial_s=1, maximum_s=5, healthy_after_s=30)
    assert [backoff.after(0) for _ in range(5)] == [1, 2, 4, 5, 5]
    assert [backoff.after(31), backoff.after(0)] == [1, 2]


def test_a_log_is_capped_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "one.log", maximum_bytes=20)
    with log.opened() as descriptor:
        os.write(descriptor, b"first line, a long one\n")
        log.cap()
        os.write(descriptor, b"second\n\n")
        log.cap()
    assert log.path.read_text() == "second\n\n"
    assert log.path.with_name("one.log.1").read_text() == "first line, a long one\n"
    assert log.tail(5) == ["second"]
