"""The imaginary place passes the contract, in this process and over HTTP, and fails exactly as it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.errors import Invalid
from control_plane.providers.base import (
    FetchSpec,
    Provider,
    ProviderError,
    ProviderUnavailable,
    ReplicaSpec,
    ReplicaState,
    Weights,
    WeightsFetcher,
)
from control_plane.providers.fake.calls import Calls, LocalCalls
from control_plane.providers.fake.faults import Fault, Faults, Operation, Trouble
from control_plane.providers.fake.hardware import CPU, GPU
from control_plane.providers.fake.place import Place
from control_plane.providers.fake.provider import FakeFetchingProvider, FakeProvider
from control_plane.providers.fake.records import EnginePlan, Log
from control_plane.providers.fake.remote import RemoteCalls
from control_plane.providers.fake.server import serving
from control_plane.providers.registry import make_providers
from control_plane.settings import Settings
from tests.control_plane.providers.contract import KEY, ProviderContract

SPEC = ReplicaSpec(
    name="slipway-x-0",
    owner="ours",
    weights=Weights("org/model", None, Path("/models/org")),
    served_model_name="org/model",
    hardware_id=CPU.id,
    api_key=KEY,
    boot_token="boot-1",
    labels={"instance": "x", "replica": "0"},
)


class FakeSite:
    """An imaginary place that a server publishes; ``owner`` is the tag of the provider's installation."""

    def __init__(
        self,
        provider: Provider,
        other_installation: Provider,
        owner: str,
        place: Place,
        plan: Callable[[str, EnginePlan], None],
    ) -> None:
        self.provider, self.other_installation = provider, other_installation
        self._owner, self._place, self._plan = owner, place, plan

    @classmethod
    def of(cls, calls: Calls, place: Place, plan: Callable[[str, EnginePlan], None]) -> FakeSite:
        """Of the fake provider itself, which reaches the place by ``calls``."""
        return cls(FakeProvider(calls, "ours"), FakeProvider(calls, "theirs"), "ours", place, plan)

    def spec(self, name: str, boot_token: str, **behaviour: object) -> ReplicaSpec:
        exit_code = behaviour.get("exit_code")
        plan = EnginePlan(
            exit_code=int(str(exit_code)) if exit_code is not None else None,
            last_words=f"{behaviour.get('message', '')}\n",
            ignores_end=bool(behaviour.get("ignore_sigterm")),
        )
        self._plan(name, plan)
        return replace(SPEC, name=name, owner=self._owner, boot_token=boot_token)

    @contextmanager
    def out_of_reach(self) -> Iterator[None]:
        self._place.faults = Faults(away=True)
        yield
        self._place.faults = Faults()


class TestInThisProcess(ProviderContract):
    @pytest.fixture
    def site(self) -> Iterator[FakeSite]:
        place = Place((CPU, GPU))
        with serving(place):
            yield FakeSite.of(LocalCalls(place), place, place.plan_engine)


class TestOverHttp(ProviderContract):
    @pytest.fixture
    def site(self) -> Iterator[FakeSite]:
        place = Place((CPU, GPU))
        with serving(place) as server:
            remote = RemoteCalls(server.url)

            def plan(name: str, engine: EnginePlan) -> None:
                remote.happen("plan_engine", name=name, plan=vars(engine))

            yield FakeSite.of(remote, place, plan)


class Seconds:
    """The place's time, which stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def place(seconds: Seconds) -> Place:
    return Place((CPU, GPU), now_s=seconds)


@pytest.fixture
def provider(place: Place, seconds: Seconds) -> FakeProvider:
    def pause(duration: float) -> None:
        seconds.now += duration

    return FakeProvider(LocalCalls(place, pause=pause), "ours")


def test_an_unanswered_create_did_nothing_and_one_whose_reply_is_lost_did_all(
    place: Place, provider: FakeProvider
) -> None:
    place.faults.plan(Operation.CREATE, Fault(Trouble.UNANSWERED))
    place.faults.plan(Operation.CREATE, Fault(Trouble.LOST_REPLY))
    with pytest.raises(ProviderUnavailable):
        provider.create(SPEC)
    assert provider.find(SPEC.name).state is ReplicaState.ABSENT
    with pytest.raises(ProviderUnavailable):
        provider.create(SPEC)
    assert provider.find(SPEC.name).boot_token == "boot-1"


def test_a_create_that_lands_late(place: Place, provider: FakeProvider, seconds: Seconds) -> None:
    place.faults.plan(Operation.CREATE, Fault(Trouble.LATE, seconds=30))
    with pytest.raises(ProviderUnavailable):
        provider.create(SPEC)
    seconds.now = 29
    assert provider.list_owned() == []
    seconds.now = 30
    assert [status.name for status in provider.list_owned()] == [SPEC.name]


def test_what_lands_late_finds_its_name_taken(place: Place, provider: FakeProvider, seconds: Seconds) -> None:
    place.faults.plan(Operation.CREATE, Fault(Trouble.LATE, seconds=30))
    with pytest.raises(ProviderUnavailable):
        provider.create(SPEC)
    provider.create(replace(SPEC, boot_token="boot-2"))
    seconds.now = 31
    assert provider.find(SPEC.name).boot_token == "boot-2"
    assert [boot.boot_token for boot in place.boots] == ["boot-2"]


def test_listing_and_finding_lag(place: Place, provider: FakeProvider, seconds: Seconds) -> None:
    place.faults = Faults(find_lag_s=2, listing_lag_s=10)
    seconds.now = 100
    provider.create(SPEC)
    assert provider.find(SPEC.name).state is ReplicaState.ABSENT
    seconds.now = 102
    assert provider.find(SPEC.name).state is ReplicaState.RUNNING
    assert provider.list_owned() == []
    seconds.now = 110
    assert [status.state for status in provider.list_owned()] == [ReplicaState.RUNNING]
    provider.delete(SPEC.name, boot_token=None, grace_s=1)
    assert place.present() == {}
    assert provider.find(SPEC.name).state is ReplicaState.RUNNING
    seconds.now = 112
    assert provider.find(SPEC.name).state is ReplicaState.ABSENT
    assert len(provider.list_owned()) == 1


def test_deletes_that_fail_are_forgotten_or_take_time(place: Place, provider: FakeProvider, seconds: Seconds) -> None:
    provider.create(SPEC)
    place.faults.plan(Operation.DELETE, Fault(Trouble.UNANSWERED))
    with pytest.raises(ProviderUnavailable):
        provider.delete(SPEC.name, boot_token=None, grace_s=5)
    place.faults.deletes_are_ignored = True
    provider.delete(SPEC.name, boot_token=None, grace_s=5)
    seconds.now = 60
    assert provider.find(SPEC.name).state is ReplicaState.RUNNING

    place.faults = Faults(delete_takes_s=20)
    provider.delete(SPEC.name, boot_token=None, grace_s=5)
    seconds.now = 79
    assert provider.find(SPEC.name).state is ReplicaState.RUNNING
    seconds.now = 80
    assert provider.find(SPEC.name).state is ReplicaState.ABSENT


def test_a_slow_call_is_done_and_answered(place: Place, provider: FakeProvider, seconds: Seconds) -> None:
    place.faults.plan(Operation.CREATE, Fault(Trouble.SLOW, seconds=7))
    assert provider.create(SPEC).state is ReplicaState.RUNNING
    assert seconds.now == 7


def test_what_finds_no_room_waits_or_is_refused(place: Place, provider: FakeProvider) -> None:
    gpu = replace(SPEC, hardware_id=GPU.id, accelerator_count=8)
    for number in range(2):
        provider.create(replace(gpu, name=f"slipway-x-{number}"))
    (offer,) = [offer for offer in provider.offers() if offer.id == GPU.id]
    assert (offer.available, offer.free_count, offer.why_unavailable) == (False, 0, "all of it is in use")

    waiting = provider.create(replace(gpu, name="slipway-x-2"))
    assert (waiting.state, waiting.reason) == (ReplicaState.PENDING, "waiting for 8 free of fake-gpu")
    place.faults.refuse_when_full = True
    with pytest.raises(ProviderError, match="no room"):
        provider.create(replace(gpu, name="slipway-x-3"))
    with pytest.raises(ProviderError, match="no node of fake-gpu has 9 devices"):
        provider.create(replace(gpu, name="slipway-x-4", accelerator_count=9))

    provider.delete("slipway-x-0", boot_token=None, grace_s=1)
    running = provider.find("slipway-x-2")
    assert (running.state, running.node) == (ReplicaState.RUNNING, "node-1")


def test_a_lost_node_and_its_return(place: Place, provider: FakeProvider) -> None:
    provider.create(SPEC)
    place.lose_node("node-1")
    lost = provider.find(SPEC.name)
    assert (lost.state, lost.reason, lost.url) == (ReplicaState.LOST, "node node-1 is gone", None)
    assert place.answer(SPEC.name) is None
    place.return_node("node-1")
    assert place.answer(SPEC.name) == ("boot-1", True)

    place.lose_node("node-1")
    provider.delete(SPEC.name, boot_token=None, grace_s=1)
    place.return_node("node-1")
    assert provider.list_owned() == [], "what was deleted meanwhile does not come back"


def test_preemption_is_for_good(place: Place, provider: FakeProvider) -> None:
    provider.create(SPEC)
    place.preempt(SPEC.name)
    place.return_node("node-1")
    assert provider.find(SPEC.name).reason == "preempted on node-1"


def test_engines_that_load_hang_or_end(place: Place, provider: FakeProvider, seconds: Seconds) -> None:
    place.plan_engine(SPEC.name, EnginePlan(ready_after_s=10, exit_code=1, exit_after_s=60, last_words="bye\n"))
    provider.create(SPEC)
    assert place.answer(SPEC.name) == ("boot-1", False)
    seconds.now = 10
    assert place.answer(SPEC.name) == ("boot-1", True)
    place.hang(SPEC.name)
    assert place.answer(SPEC.name) is None
    place.hang(SPEC.name, hung=False)
    assert place.answer(SPEC.name) == ("boot-1", True)
    seconds.now = 60
    assert provider.find(SPEC.name).exit_code == 1
    assert provider.create(SPEC).state is ReplicaState.EXITED, "one boot does not run twice"
    assert provider.logs(SPEC.name, tail_bytes=5).strip() == "bye"


def test_a_storage_of_its_own(place: Place) -> None:
    fetcher = FakeFetchingProvider(LocalCalls(place), "ours")
    assert isinstance(fetcher, WeightsFetcher)
    assert not isinstance(FakeProvider(LocalCalls(place), "ours"), WeightsFetcher)
    spec = FetchSpec("slipway-fetch-x", "ours", GPU.id, "https://slipway.example/job", "boot-1", "token")
    assert fetcher.fetch(spec).state is ReplicaState.RUNNING
    (offer,) = [offer for offer in fetcher.offers() if offer.id == GPU.id]
    assert offer.free_count == 16, "an agent takes no device"
    place.exit(spec.name, 0)
    assert [(status.name, status.exit_code) for status in fetcher.list_owned()] == [(spec.name, 0)]


def test_events_and_faults_over_http() -> None:
    place = Place((CPU, GPU))
    with serving(place) as server:
        remote = RemoteCalls(server.url)
        provider = FakeProvider(remote, "ours")
        assert all(offer.available for offer in provider.offers())
        provider.create(SPEC)
        remote.happen("exit", name=SPEC.name, code=-9, last_words="killed\n")
        assert provider.find(SPEC.name).exit_code == -9
        faults = Faults()
        faults.plan(Operation.DELETE, Fault(Trouble.LOST_REPLY))
        remote.set_faults(faults)
        with pytest.raises(ProviderUnavailable, match="does not answer"):
            provider.delete(SPEC.name, boot_token=None, grace_s=1)
        assert provider.find(SPEC.name).state is ReplicaState.ABSENT
        with pytest.raises(ProviderError, match="is nothing here"):
            remote.happen("explode")
        with pytest.raises(ProviderError, match="code"):
            remote.happen("exit", name=SPEC.name, code="x")
    assert [(offer.id, offer.available) for offer in provider.offers()] == [(CPU.id, False), (GPU.id, False)]
    assert all("does not answer" in (offer.why_unavailable or "") for offer in provider.offers())


def test_the_server_is_asked_for_by_its_address() -> None:
    with pytest.raises(Invalid, match="imaginary place") as refusal:
        make_providers(Settings(providers=["fake"]))
    assert "SLIPWAY_FAKE_URL" in refusal.value.next_step
    settings = Settings(providers=["fake"], fake_url="http://127.0.0.1:9", secret_key="x")
    with pytest.raises(ProviderUnavailable):
        make_providers(settings)["fake"].list_owned()


def test_a_log_keeps_its_offsets_when_its_beginning_goes() -> None:
    log = Log()
    log.append("x" * (1 << 20))
    log.append("the end\n")
    assert log.end == (1 << 20) + 8
    assert log.read(1 << 20) == "the end\n"
    assert log.read(0).startswith("x")
    log.append("of it\n")
    assert log.read(-9) == "of it\n"
