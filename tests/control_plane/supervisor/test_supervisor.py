"""Processes start and end in order; nothing outlives their supervisor."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.supervisor.child import ChildFailed, ChildState
from control_plane.supervisor.supervisor import Plan, ProcessReport, Supervisor
from tests.control_plane.supervisor.children import DYING, STUBBORN, spec
from tests.support.processes import alive, eventually, family


class Observed:
    """The states of all processes after each change."""

    def __init__(self) -> None:
        self.states: list[dict[str, ChildState]] = []

    def __call__(self, processes: list[ProcessReport]) -> None:
        self.states.append({process.name: process.state for process in processes})


def supervisor_of(plan: Plan, folder: Path, observed: Observed) -> Supervisor:
    return Supervisor(plan, folder / "logs", report=lambda _: None, changed=observed)


def test_a_stage_starts_when_the_one_before_is_ready_and_ends_in_the_order_of_the_plan(tmp_path: Path) -> None:
    low, high = spec(tmp_path, "low"), spec(tmp_path, "high")
    observed = Observed()
    supervisor = supervisor_of(Plan(start=[[low], [high]], stop=[["high"], ["low"]]), tmp_path, observed)

    async def scenario() -> list[ProcessReport]:
        await supervisor.start(20)
        running = supervisor.processes()
        await supervisor.stop()
        return running

    running = asyncio.run(scenario())
    assert [(process.name, process.state) for process in running] == [("low", "ready"), ("high", "ready")]
    assert all(state["low"] == ChildState.READY for state in observed.states if state["high"] == ChildState.STARTING)
    assert any(state["high"] == ChildState.STARTING for state in observed.states)
    assert all(state["high"] == ChildState.STOPPED for state in observed.states[-1:])
    ended_first = [state for state in observed.states if state == {"low": ChildState.READY, "high": ChildState.STOPPED}]
    assert ended_first


def test_a_failed_start_can_be_cleared_away(tmp_path: Path) -> None:
    good, bad = spec(tmp_path, "good"), spec(tmp_path, "bad", DYING)
    supervisor = supervisor_of(Plan(start=[[good, bad]], stop=[["good", "bad"]]), tmp_path, Observed())

    async def scenario() -> None:
        with pytest.raises(ChildFailed, match="bad does not start"):
            await supervisor.start(20)
        await supervisor.stop()

    asyncio.run(scenario())
    assert [process.state for process in supervisor.processes()] == [ChildState.STOPPED, ChildState.STOPPED]


_SUPERVISING = """
import asyncio, sys
from pathlib import Path
from control_plane.supervisor.supervisor import Plan, Supervisor
from tests.control_plane.supervisor.children import STUBBORN, spec

async def main(folder):
    children = [spec(folder, "one"), spec(folder, "two", STUBBORN)]
    plan = Plan(start=[children], stop=[["one", "two"]])
    await Supervisor(plan, folder / "logs", report=print, changed=lambda _: None).start(20)
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_sigkill_of_the_supervisor_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _SUPERVISING, str(tmp_path)], stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        assert up.stdout.readline() == "ready\n"
        processes = family(up.pid)
        assert len(alive(processes)) == 3
        up.send_signal(signal.SIGKILL)
    eventually(lambda: not alive(processes), "every process ends")


def test_kill_does_not_wait_for_anybody(tmp_path: Path) -> None:
    children = [spec(tmp_path, "one", STUBBORN, grace_s=600), spec(tmp_path, "two", STUBBORN, grace_s=600)]
    supervisor = supervisor_of(Plan(start=[children], stop=[["one"], ["two"]]), tmp_path, Observed())

    async def scenario() -> None:
        await supervisor.start(20)
        stopping = asyncio.create_task(supervisor.stop())
        await asyncio.sleep(0)  # stop() has sent its signals and waits
        supervisor.kill()
        await asyncio.wait_for(stopping, 20)

    asyncio.run(scenario())
    assert {process.last_exit_code for process in supervisor.processes()} == {-signal.SIGKILL}
