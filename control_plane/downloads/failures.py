"""Why a transfer stopped. Transient failures are tried again, final ones need a person; both say what and what next."""

from __future__ import annotations

import errno


class TransferFailure(Exception):
    """Base: ``reason`` is a sentence for a person, ``next_step`` what to do about it."""

    def __init__(self, reason: str, next_step: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.next_step = next_step


class TransientFailure(TransferFailure):
    """The hub or the network may do better in a moment.

    :param retry_after_s: how long the hub asked us to wait.
    """

    def __init__(self, reason: str, next_step: str | None = None, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason, next_step or "Check the network and HF_ENDPOINT, then launch again.")
        self.retry_after_s = retry_after_s


class FinalFailure(TransferFailure):
    """Repeating the same request cannot help."""


def explain(error: BaseException) -> TransferFailure | None:
    """The failure behind ``error``, which may be a group of them: a final one if there is any. None: a bug of ours."""
    if isinstance(error, TransferFailure):
        return error
    if isinstance(error, OSError):
        return _disk_failure(error)
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = [failure for inner in error.exceptions if (failure := explain(inner))]
    return next((failure for failure in found if isinstance(failure, FinalFailure)), found[0] if found else None)


def _disk_failure(error: OSError) -> FinalFailure:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return FinalFailure(
            "the disk is full; what was fetched is kept",
            "Free space where the models are kept, or set HF_HOME to a larger disk, then launch again.",
        )
    return FinalFailure(
        f"the folder of the models cannot be written: {error.strerror or error}",
        "Check the permissions and the health of that disk, or set HF_HOME to another one, then launch again.",
    )
