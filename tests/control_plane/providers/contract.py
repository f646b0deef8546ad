"""What every provider must do, tried on the real thing behind it.

A provider's test module derives a class from :class:`ProviderContract` and gives it a fixture ``site``. Engines are
``tests/support/tiny_engine.py`` under the name of ``slipway-serve``, and each model folder says how its engine behaves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Protocol
from uuid import uuid4

import httpx
import pytest

from control_plane.providers.base import (
    Provider,
    ProviderError,
    ProviderUnavailable,
    ReplicaSpec,
    ReplicaState,
    ReplicaStatus,
)
from tests.support.processes import eventually

KEY = "key-of-the-replica"
BOOT = "boot-1"


class Site(Protocol):
    """A place where a provider runs replicas, made for a test."""

    provider: Provider
    #: The same place as another installation sees it: another root secret, and so another owner tag.
    other_installation: Provider

    def spec(self, name: str, boot_token: str, **behaviour: object) -> ReplicaSpec:
        """A replica that can run here, whose engine behaves as ``tiny_engine.py`` reads ``behaviour``; key ``KEY``."""
        ...

    def out_of_reach(self) -> AbstractContextManager[None]:
        """While it lasts the service behind the provider does not answer; what runs goes on."""
        ...


@contextmanager
def replica(site: Site, name: str, boot_token: str = BOOT, **behaviour: object) -> Iterator[ReplicaStatus]:
    """A replica that runs, or has ended where it was made to; gone afterwards."""
    site.provider.create(site.spec(name, boot_token, **behaviour))
    try:
        wait_until(site.provider, name, ReplicaState.EXITED if "exit_code" in behaviour else ReplicaState.RUNNING)
        yield site.provider.find(name)
    finally:
        remove(site.provider, name)


def wait_until(provider: Provider, name: str, state: ReplicaState, timeout_s: float = 60) -> ReplicaStatus:
    """The replica's status once it is in ``state`` (and, running, answers)."""
    seen: list[ReplicaStatus] = []

    def there() -> bool:
        seen[:] = [provider.find(name)]
        return seen[0].state is state and (state is not ReplicaState.RUNNING or boot_at(seen[0].url) is not None)

    eventually(there, f"{name} is {state} (last: {seen})", timeout_s)
    return seen[0]


def remove(provider: Provider, name: str) -> None:
    """Delete a replica and wait until it is gone."""

    def gone() -> bool:
        provider.delete(name, boot_token=None, grace_s=1)
        return provider.find(name).state is ReplicaState.ABSENT

    eventually(gone, f"{name} is gone", 60)


def boot_at(url: str | None) -> str | None:
    """Which boot answers at ``url``."""
    try:
        return httpx.get(f"{url}/ready", timeout=2, trust_env=False).headers.get("x-boot-id")
    except (httpx.HTTPError, httpx.InvalidURL):
        return None


def names(statuses: list[ReplicaStatus]) -> set[str]:
    return {status.name for status in statuses}


class ProviderContract:
    """The suite. A subclass has a fixture ``site`` (any scope)."""

    @pytest.fixture
    def name(self) -> str:
        """A name that no other test uses."""
        return f"slipway-{uuid4().hex}-0"

    def test_a_replica_runs_answers_and_goes(self, site: Site, name: str) -> None:
        with replica(site, name) as status:
            assert (status.name, status.boot_token) == (name, "boot-1")
            assert boot_at(status.url) == "boot-1"
            with httpx.Client(base_url=status.url or "", trust_env=False, timeout=5) as client:
                assert client.get("/v1/models").status_code == 401
                assert client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
        assert site.provider.find(name).state is ReplicaState.ABSENT
        assert boot_at(status.url) is None
        site.provider.delete(name, boot_token=None, grace_s=1)

    def test_creating_it_twice_gives_one(self, site: Site, name: str) -> None:
        with replica(site, name) as first:
            again = site.provider.create(site.spec(name, "boot-1"))
            another_boot = site.provider.create(site.spec(name, "boot-2"))
            assert (again.boot_token, another_boot.boot_token) == ("boot-1", "boot-1")
            assert [status.name for status in site.provider.list_owned()].count(name) == 1
            assert boot_at(first.url) == "boot-1"

    def test_created_by_several_workers_at_once(self, site: Site, name: str) -> None:
        def create() -> None:
            try:
                site.provider.create(site.spec(name, "boot-1"))
            except ProviderUnavailable:
                return  # "look again" is an honest answer to the one who came second

        workers = [threading.Thread(target=create) for _ in range(4)]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(60)
            wait_until(site.provider, name, ReplicaState.RUNNING)
            assert [status.name for status in site.provider.list_owned()].count(name) == 1
        finally:
            remove(site.provider, name)

    def test_what_is_listed(self, site: Site, name: str) -> None:
        with replica(site, name):
            (listed,) = [status for status in site.provider.list_owned() if status.name == name]
            assert (listed.state, listed.boot_token) == (ReplicaState.RUNNING, "boot-1")
            assert dict(listed.labels) == dict(site.spec(name, "boot-1").labels)
            assert name not in names(site.other_installation.list_owned())
        assert name not in names(site.provider.list_owned())

    def test_an_engine_that_ends_by_itself(self, site: Site, name: str) -> None:
        with replica(site, name, exit_code=3, message="the last words") as status:
            assert (status.state, status.exit_code, status.boot_token) == (ReplicaState.EXITED, 3, "boot-1")
            eventually(lambda: "the last words" in site.provider.logs(name, tail_bytes=4096), "the log is complete")
            site.provider.delete(name, boot_token=None, grace_s=1)
            eventually(lambda: site.provider.find(name).state is ReplicaState.ABSENT, "it is forgotten", 30)
            site.provider.create(site.spec(name, "boot-2"))
            assert wait_until(site.provider, name, ReplicaState.RUNNING).boot_token == "boot-2"

    def test_logs_by_tail_and_by_offset(self, site: Site, name: str) -> None:
        with replica(site, name):
            eventually(lambda: "ready http" in site.provider.logs(name, tail_bytes=4096), "it wrote its log")
            assert len(site.provider.logs(name, tail_bytes=5).encode()) <= 5
            pieces = list(site.provider.follow_logs(name, offset=0))
            assert "ready http" in "".join(text for _, text in pieces)
            end = pieces[-1][0]
            assert "".join(text for _, text in site.provider.follow_logs(name, offset=end)).count("ready http") == 0

    def test_a_delete_lets_requests_finish(self, site: Site, name: str) -> None:
        with replica(site, name, drains=True) as status:
            url, headers = f"{status.url}/v1/completions", {"Authorization": f"Bearer {KEY}"}
            body = {"model": "m", "stream": True, "max_tokens": 15}
            with httpx.stream("POST", url, json=body, headers=headers, timeout=30, trust_env=False) as answer:
                lines = answer.iter_lines()
                assert next(lines)
                site.provider.delete(name, boot_token=None, grace_s=20)
                assert "data: [DONE]" in list(lines)
            eventually(lambda: site.provider.find(name).state is ReplicaState.ABSENT, "it is gone", 60)

    def test_a_delete_ends_what_does_not_want_to_end(self, site: Site, name: str) -> None:
        with replica(site, name, ignore_sigterm=True):
            site.provider.delete(name, boot_token=None, grace_s=1)
            eventually(lambda: site.provider.find(name).state is ReplicaState.ABSENT, "it is gone", 60)

    def test_an_order_to_delete_that_comes_late_leaves_another_boot_alone(self, site: Site, name: str) -> None:
        with replica(site, name) as status:
            site.provider.delete(name, boot_token="boot-0", grace_s=1)
            time.sleep(2)
            assert site.provider.find(name).state is ReplicaState.RUNNING
            assert boot_at(status.url) == "boot-1"
            site.provider.delete(name, boot_token="boot-1", grace_s=1)
            eventually(lambda: site.provider.find(name).state is ReplicaState.ABSENT, "it is gone", 60)

    def test_what_cannot_work_is_refused(self, site: Site, name: str) -> None:
        good = site.spec(name, "boot-1")
        for bad in (
            replace(good, hardware_id="no-such-hardware"),
            replace(good, engine_options={"port": "1"}),
            replace(good, engine_options={"x y": "1"}),
            replace(good, name="../escape"),
        ):
            with pytest.raises(ProviderError) as refusal:
                site.provider.create(bad)
            assert refusal.value.detail
            assert refusal.value.next_step
        assert site.provider.find(name).state is ReplicaState.ABSENT

    def test_offers(self, site: Site) -> None:
        offers = site.provider.offers()
        assert offers
        for offer in offers:
            assert offer.provider == site.provider.name
            assert offer.memory_bytes > 0
            assert offer.available or offer.why_unavailable
            assert offer.free_count is None or offer.free_count >= 0
        assert len({offer.id for offer in offers}) == len(offers)
        assert site.spec("x", "boot-1").hardware_id in {offer.id for offer in offers}

    def test_out_of_reach_nothing_is_known_and_nothing_is_lost(self, site: Site, name: str) -> None:
        with replica(site, name) as status:
            with site.out_of_reach():
                for call in (
                    lambda: site.provider.find(name),
                    site.provider.list_owned,
                    lambda: site.provider.create(site.spec(name, "boot-1")),
                    lambda: site.provider.delete(name, boot_token=None, grace_s=1),
                ):
                    with pytest.raises(ProviderUnavailable):
                        call()
                for offer in site.provider.offers():
                    assert not offer.available
                    assert offer.why_unavailable
                assert boot_at(status.url) == "boot-1", "serving goes on"
            eventually(lambda: site.provider.find(name).boot_token == "boot-1", "it is found again", 60)
