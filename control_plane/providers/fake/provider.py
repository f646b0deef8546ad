"""The fake provider: the imaginary place in this process, or over HTTP where several processes share it."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.errors import Invalid
from control_plane.keys import installation_id
from control_plane.providers.base import FetchSpec, HardwareOffer, ReplicaSpec, ReplicaStatus
from control_plane.providers.fake.calls import Calls
from control_plane.providers.fake.remote import RemoteCalls
from control_plane.settings import Settings


class FakeProvider:
    """Asks an imaginary place; ``owner`` is this installation's tag."""

    name = "fake"
    exact = False  # its listings lag when they are told to

    def __init__(self, calls: Calls, owner: str) -> None:
        self._calls, self._owner = calls, owner

    @classmethod
    def from_settings(cls, settings: Settings) -> FakeProvider:
        """The provider of the place at ``settings.fake_url``.

        :raises Invalid: no address is set; web and workers are several processes and must see one place.
        """
        if not settings.fake_url:
            start = "python -m control_plane.providers.fake.server --port 8900"
            next_step = f"Start it ({start}) and set SLIPWAY_FAKE_URL=http://127.0.0.1:8900."
            raise Invalid("the fake provider does not know where its imaginary place is", next_step)
        return cls(RemoteCalls(settings.fake_url), installation_id(settings))

    def offers(self) -> list[HardwareOffer]:
        """What the place has."""
        return self._calls.offers()

    def create(self, spec: ReplicaSpec) -> ReplicaStatus:
        """Start a replica; see :class:`~control_plane.providers.base.Provider`."""
        return self._calls.create(spec)

    def find(self, name: str) -> ReplicaStatus:
        """What is known of a replica."""
        return self._calls.find(name)

    def list_owned(self) -> list[ReplicaStatus]:
        """Everything of this installation."""
        return self._calls.list_owned(self._owner)

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        """Begin to end a replica."""
        self._calls.delete(name, boot_token=boot_token, grace_s=grace_s)

    def logs(self, name: str, *, tail_bytes: int) -> str:
        """The end of a replica's log."""
        return self._calls.read_log(name, -tail_bytes).text

    def follow_logs(self, name: str, *, offset: int) -> Iterator[tuple[int, str]]:
        """What is there from ``offset`` on, in one piece."""
        piece = self._calls.read_log(name, offset)
        if piece.text:
            yield piece


class FakeFetchingProvider(FakeProvider):
    """The same with a storage of its own: weights are fetched over there (``WeightsFetcher``)."""

    def location(self, hardware_id: str) -> str:  # noqa: ARG002 (the protocol fixes the signature)
        """All hardware reads one storage."""
        return f"{self.name}:storage"

    def fetch(self, spec: FetchSpec) -> ReplicaStatus:
        """Start an agent, which does nothing until the place is told how it ends."""
        return self._calls.create(spec)
