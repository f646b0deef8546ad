"""``slipway up``, from the empty folder to the running system and back to nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import httpx

from control_plane import client_file
from control_plane.clock import SYSTEM_CLOCK
from control_plane.errors import Unavailable
from control_plane.settings import Settings
from control_plane.supervisor import data_folder, starter
from control_plane.supervisor.announcement import Announcement
from control_plane.supervisor.child import ChildFailed
from control_plane.supervisor.listener import listen
from control_plane.supervisor.plan import make_plan
from control_plane.supervisor.supervisor import Supervisor

_START_DEADLINE_S = 90.0
_TAIL_LINES = 15

Report = Callable[[str], None]


class DidNotStart(Unavailable):
    """One of the processes does not start; its last words were reported."""

    code = "did_not_start"


def run(settings: Settings, *, with_starter: bool, report: Report, announce: Callable[[Announcement], None]) -> None:
    """Run everything until SIGINT or SIGTERM, and leave nothing behind. Call it in the main thread.

    :param report: gets lines about what happens; :param announce: is called once, when everything runs.
    :raises SlipwayError: it cannot start; nothing is left running.
    """
    data_folder.prepare(settings)
    holder = data_folder.Holder(
        os.getpid(), settings.local_url, version("slipway"), SYSTEM_CLOCK.now().isoformat(timespec="seconds")
    )
    with data_folder.held(settings, holder), listen(settings.host, settings.port) as listener:
        # Imported late: that the folder or the port is taken must not be told after seconds of loading.
        from control_plane.supervisor.installation import prepare_database  # noqa: PLC0415

        setup_url = prepare_database(settings)
        asyncio.run(_Run(settings, listener, setup_url, with_starter, report, announce).until_stopped())


@dataclass(frozen=True)
class _Run:
    """One run, with what its steps share."""

    settings: Settings
    listener: socket.socket
    setup_url: str | None
    with_starter: bool
    report: Report
    announce: Callable[[Announcement], None]

    async def until_stopped(self) -> None:
        """Start everything, tell of it, wait for a signal, stop everything."""
        supervisor = Supervisor(
            make_plan(self.settings, self.listener),
            data_folder.logs_dir(self.settings),
            report=self.report,
            changed=partial(data_folder.write_processes, self.settings),
        )
        stop = self._stop_signal(supervisor)
        starting = asyncio.create_task(self._start(supervisor))
        stopping = asyncio.create_task(stop.wait())
        capping = asyncio.create_task(supervisor.cap_logs())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await stopping
        except ChildFailed as error:
            for line in error.log.tail(_TAIL_LINES):
                self.report(f"{error.name} | {line}")
            raise DidNotStart(str(error), f"See {error.log.path}; 'slipway doctor' checks this machine.") from error
        finally:
            for task in (starting, stopping, capping):
                task.cancel()
            await supervisor.stop()

    def _stop_signal(self, supervisor: Supervisor) -> asyncio.Event:
        """An event for the first SIGINT, SIGTERM or SIGHUP; the second ends everything at once."""
        stop = asyncio.Event()

        def on_signal() -> None:
            if stop.is_set():
                self.report("stopping at once")
                supervisor.kill()
            else:
                self.report("stopping: instances finish what they are doing; once more to stop at once")
                stop.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)
        return stop

    async def _start(self, supervisor: Supervisor) -> None:
        self.report(f"starting {', '.join(supervisor.children)}")
        await supervisor.start(_START_DEADLINE_S)
        state = api_url = curl = None
        if self.with_starter:
            try:
                instance = await self._launch_starter()
            except (starter.StarterRefused, httpx.HTTPError, ValueError) as error:
                state = f"not launched: {error or type(error).__name__}"
            else:
                state = instance.phase if instance.running else f"{instance.phase}: {instance.reason}"
                if instance.running:
                    api_url, curl = instance.api_url, starter.curl_line(instance, self.settings.client_header)
        self.announce(Announcement(self.settings.public_url, self.setup_url, state, api_url, curl))

    async def _launch_starter(self) -> starter.Starter:
        client = client_file.read(self.settings.data_dir)
        headers = {"Authorization": f"Bearer {client.api_key if client else ''}"}
        url = self.settings.local_url
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as http:
            return await starter.ensure_running(http, self.report)
