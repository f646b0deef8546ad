"""Many launches and terminations at once while processes of the control plane are killed, and the books afterwards."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from control_plane.providers.base import Provider
from tests.support.fleet import Api, Fleet
from tests.support.processes import eventually

#: Seconds in which at least one instance must get where it is going.
PATIENCE_S = 120.0
#: Seconds that a process works, at least, before it may be killed.
LIFE_S = 2.0
_AT_ONCE = 16


class Round(NamedTuple):
    """One round's figures."""

    launched: int
    terminated: int
    seconds: float


@dataclass
class Report:
    """What was done, and what it cost."""

    rounds: list[Round] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)


@dataclass
class Chaos:
    """The scenario: each round launches ``count`` instances and terminates those of the round before, at once.

    :ivar body: fields of every launch but its name.
    :ivar kill_every_s: mean pause between two SIGKILLs; None for none.
    """

    fleet: Fleet
    count: int
    body: dict[str, Any]
    kill_every_s: float | None
    seed: int = 0

    def run(self, rounds: int) -> Report:
        """All rounds, and one more that only terminates.

        :raises TimeoutError: an instance is stuck; the message says which, and what it says of itself.
        """
        report, api = Report(), self.fleet.api()
        with killing(self.fleet, self.kill_every_s, self.seed, report.kills):
            leaving: list[str] = []
            for number in range(rounds + 1):
                wanted = [f"r{number}-{ordinal}" for ordinal in range(self.count if number < rounds else 0)]
                began = time.monotonic()
                coming = self._act(wanted, leaving)
                settle(api, dict.fromkeys(coming, "running") | dict.fromkeys(leaving, "terminated"))
                report.rounds.append(Round(len(coming), len(leaving), time.monotonic() - began))
                leaving = coming
        api.close()
        return report

    def _act(self, wanted: list[str], leaving: list[str]) -> list[str]:
        """Ask for everything at once, in a random order; the ids of what was launched."""
        actions: list[Callable[[Api], str | None]] = [
            *(lambda api, name=name: api.launch(name=name, **self.body) for name in wanted),
            *(lambda api, gone=gone: api("DELETE", f"/instances/{gone}") and None for gone in leaving),
        ]
        random.Random(self.seed).shuffle(actions)  # noqa: S311 (an order, no secret)

        def act(action: Callable[[Api], str | None]) -> str | None:
            api = self.fleet.api()
            try:
                return action(api)
            finally:
                api.close()

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [made for made in pool.map(act, actions) if made]


def settle(api: Api, goals: dict[str, str], patience_s: float = PATIENCE_S) -> None:
    """Wait until each instance is in its phase.

    :raises TimeoutError: for ``patience_s`` seconds not one of them got there.
    """
    missing, last_change = len(goals), time.monotonic()
    while missing:
        now = {item["id"]: item for item in api.instances()}
        late = [now[id_] for id_, goal in goals.items() if now[id_]["phase"] != goal]
        if len(late) != missing:
            missing, last_change = len(late), time.monotonic()
        if time.monotonic() - last_change > patience_s:
            words = "\n".join(f"{item['name']}: {item['phase']}: {item['reason']}" for item in late[:10])
            raise TimeoutError(f"{len(late)} of {len(goals)} instances are stuck for {patience_s:g} s:\n{words}")
        time.sleep(0.3)


@contextmanager
def killing(fleet: Fleet, every_s: float | None, seed: int, kills: Counter[str]) -> Iterator[None]:
    """Meanwhile, SIGKILL a process of the fleet now and then; counted by role in ``kills``.

    One is killed only when it has worked for as long as it took to start. Else nothing would ever get done on a busy
    machine, and that would be no fault of the system's.
    """
    enough = threading.Event()
    killer = threading.Thread(target=_kill, args=(fleet, every_s, random.Random(seed), kills, enough))  # noqa: S311
    if every_s is not None:
        killer.start()
    try:
        yield
    finally:
        enough.set()
        if every_s is not None:
            killer.join()


def _kill(fleet: Fleet, every_s: float, chance: random.Random, kills: Counter[str], enough: threading.Event) -> None:
    ready_since = dict.fromkeys(filter(fleet.is_ready, fleet.names), -math.inf)
    next_kill = time.monotonic() + 0.5 * every_s
    while not enough.wait(0.1):
        now = time.monotonic()
        ready_since = {name: ready_since.get(name, now) for name in fleet.names if fleet.is_ready(name)}
        victims = [
            name for name, since in ready_since.items() if now - since >= max(LIFE_S, since - fleet.started_at[name])
        ]
        if victims and now >= next_kill:
            name = chance.choice(victims)
            fleet.kill(name)
            kills[name.partition("-")[0]] += 1
            del ready_since[name]
            next_kill = now + chance.uniform(0.5, 1.5) * every_s


def check_books(fleet: Fleet, provider: Provider, launches: int) -> None:
    """Nothing is left at the provider, nothing was lost, nothing was made twice, nothing is billed any more."""
    # What was deleted may take its grace period, and a listing its time.
    eventually(lambda: provider.list_owned() == [], "the provider has nothing of ours", PATIENCE_S)
    api = fleet.api()
    instances = api.instances()
    assert Counter(item["phase"] for item in instances) == {"terminated": launches}
    assert len({item["name"] for item in instances}) == launches
    for item in instances:
        actions = [event["action"] for event in api("GET", f"/instances/{item['id']}/events")["items"]]
        assert actions.count("instance.requested") == 1, (item["name"], actions)
        assert actions.count("instance.running") == 1, (item["name"], actions)
        assert actions.count("instance.terminated") == 1, (item["name"], actions)
        assert "instance.failed" not in actions, (item["name"], actions)
        assert item["cost_so_far"] >= 0
    before = {item["id"]: item["cost_so_far"] for item in instances}
    assert {item["id"]: item["cost_so_far"] for item in api.instances()} == before
    api.close()
