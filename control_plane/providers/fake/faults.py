"""What goes wrong at the imaginary place, on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Operation(StrEnum):
    """The calls that a fault can hit."""

    CREATE = "create"
    FIND = "find"
    LIST = "list"
    DELETE = "delete"
    LOGS = "logs"


class Trouble(StrEnum):
    """How one call goes wrong."""

    #: Nothing is done, and no answer comes.
    UNANSWERED = "unanswered"
    #: All is done, and no answer comes.
    LOST_REPLY = "lost reply"
    #: No answer comes; it is done ``seconds`` later, when the caller has long given up. For ``create``.
    LATE = "late"
    #: The place says no, finally.
    REFUSED = "refused"
    #: All is done; the answer takes ``seconds``.
    SLOW = "slow"


@dataclass(frozen=True)
class Fault:
    """One fault of one call."""

    trouble: Trouble
    seconds: float = 0.0
    detail: str = "the imaginary place does not answer"


@dataclass
class Faults:
    """What goes wrong from now on. The default is that nothing does.

    :ivar away: no call is answered; what runs goes on.
    :ivar answers_take_s: every call takes so long, as those of a cloud do.
    :ivar find_lag_s: ``find`` answers what was true so many seconds ago.
    :ivar listing_lag_s: ``list`` does.
    :ivar delete_takes_s: seconds between the order to delete and the end of a replica that has nothing to drain.
    :ivar deletes_are_ignored: an order to delete is accepted and forgotten.
    :ivar refuse_when_full: a replica that finds no room is refused; otherwise it waits as ``pending``.
    :ivar engines_are_silent: no engine answers, though each runs.
    :ivar engines_never_get_ready: engines answer, but "not ready".
    :ivar planned: faults of the next calls of an operation, one each.
    """

    away: bool = False
    answers_take_s: float = 0.0
    find_lag_s: float = 0.0
    listing_lag_s: float = 0.0
    delete_takes_s: float = 0.0
    deletes_are_ignored: bool = False
    refuse_when_full: bool = False
    engines_are_silent: bool = False
    engines_never_get_ready: bool = False
    planned: dict[Operation, list[Fault]] = field(default_factory=dict)

    def plan(self, operation: Operation, fault: Fault, *, times: int = 1) -> None:
        """The next ``times`` calls of ``operation`` that have no fault yet get this one."""
        self.planned.setdefault(operation, []).extend([fault] * times)

    def take(self, operation: Operation) -> Fault | None:
        """The fault of the call that is made now."""
        waiting = self.planned.get(operation)
        return waiting.pop(0) if waiting else None
