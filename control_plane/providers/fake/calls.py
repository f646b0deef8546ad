"""The calls of a provider on the imaginary place, each with its fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from control_plane.providers.base import (
    FetchSpec,
    HardwareOffer,
    ProviderError,
    ProviderUnavailable,
    ReplicaSpec,
    ReplicaState,
    ReplicaStatus,
)
from control_plane.providers.engine_flags import check_name, check_options
from control_plane.providers.fake.faults import Fault, Operation, Trouble
from control_plane.providers.fake.place import Place

#: Options that a provider decides itself.
_LABEL_LENGTH = 63
_NEXT_STEP = "Wait; an imaginary place comes back when its faults end."
_AWAY = "the imaginary place is out of reach"


class LogPiece(NamedTuple):
    """``text``, and the offset (bytes since the log's beginning) of its end."""

    end: int
    text: str


class Calls(Protocol):
    """What the provider asks of a place, here or over HTTP. Every call but ``offers`` may raise.

    :raises ProviderError: refused, finally.
    :raises ProviderUnavailable: the outcome is unknown.
    """

    def offers(self) -> list[HardwareOffer]:
        """What can be had now."""
        ...

    def create(self, spec: ReplicaSpec | FetchSpec) -> ReplicaStatus:
        """Start it, or return what has its name."""
        ...

    def find(self, name: str) -> ReplicaStatus:
        """What is known of a name."""
        ...

    def list_owned(self, owner: str) -> list[ReplicaStatus]:
        """What carries an owner's tag."""
        ...

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        """Begin to end it."""
        ...

    def read_log(self, name: str, offset: int) -> LogPiece:
        """Its log from ``offset`` on; a negative one counts from the end and begins with a whole line."""
        ...


class LocalCalls:
    """Calls within this process.

    :param pause: how a slow answer passes its time.
    """

    def __init__(self, place: Place, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._place, self._pause = place, pause

    def offers(self) -> list[HardwareOffer]:
        """See :class:`Calls`."""
        return self._place.inventory().offers("fake", _AWAY if self._place.faults.away else None)

    def create(self, spec: ReplicaSpec | FetchSpec) -> ReplicaStatus:
        """See :class:`Calls`."""
        fault = self._begin(Operation.CREATE)
        _check(spec)
        if fault is not None and fault.trouble is Trouble.LATE:
            self._place.create_later(spec, fault.seconds)
            raise ProviderUnavailable(fault.detail, _NEXT_STEP)
        status = self._place.create(spec)
        self._end(fault)
        return status

    def find(self, name: str) -> ReplicaStatus:
        """See :class:`Calls`."""
        fault = self._begin(Operation.FIND)
        known = self._place.known(name)
        self._end(fault)
        return known or ReplicaStatus(name, ReplicaState.ABSENT)

    def list_owned(self, owner: str) -> list[ReplicaStatus]:
        """See :class:`Calls`."""
        fault = self._begin(Operation.LIST)
        owned = self._place.owned(owner)
        self._end(fault)
        return owned

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        """See :class:`Calls`."""
        fault = self._begin(Operation.DELETE)
        self._place.delete(name, boot_token=boot_token, grace_s=grace_s)
        self._end(fault)

    def read_log(self, name: str, offset: int) -> LogPiece:
        """See :class:`Calls`."""
        fault = self._begin(Operation.LOGS)
        log = self._place.log(name)
        piece = LogPiece(log.end, log.read(offset))
        self._end(fault)
        return piece

    def _begin(self, operation: Operation) -> Fault | None:
        fault = self._place.faults.take(operation)
        if self._place.faults.answers_take_s > 0:
            self._pause(self._place.faults.answers_take_s)
        if self._place.faults.away:
            raise ProviderUnavailable(_AWAY, _NEXT_STEP)
        if fault is not None and fault.trouble is Trouble.UNANSWERED:
            raise ProviderUnavailable(fault.detail, _NEXT_STEP)
        if fault is not None and fault.trouble is Trouble.REFUSED:
            raise ProviderError(fault.detail, "Ask for something else.")
        return fault

    def _end(self, fault: Fault | None) -> None:
        if fault is None:
            return
        if fault.trouble is Trouble.SLOW:
            self._pause(fault.seconds)
        elif fault.trouble is Trouble.LOST_REPLY:
            raise ProviderUnavailable(fault.detail, _NEXT_STEP)


def _check(spec: ReplicaSpec | FetchSpec) -> None:
    """Refuse what no provider would start."""
    check_name(spec.name)
    for key, value in spec.labels.items():
        if len(key) > _LABEL_LENGTH or len(value) > _LABEL_LENGTH:
            raise ProviderError(f"the label {key!r} is too long", f"Labels have at most {_LABEL_LENGTH} characters.")
    if isinstance(spec, ReplicaSpec):
        check_options(spec)
