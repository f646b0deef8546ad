"""What the exit status of ``slipway`` means, and how an error becomes one."""

from __future__ import annotations

from enum import IntEnum

from control_plane.errors import SlipwayError


class ExitCode(IntEnum):
    """Exit statuses of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_PERMITTED = 4
    TIMED_OUT = 5


_BY_STATUS = {
    401: ExitCode.NOT_PERMITTED,
    403: ExitCode.NOT_PERMITTED,
    404: ExitCode.NOT_FOUND,
    408: ExitCode.TIMED_OUT,
    422: ExitCode.USAGE,
    504: ExitCode.TIMED_OUT,
}


class TimedOut(SlipwayError):
    """What was waited for did not happen in time."""

    status, code = 504, "timed_out"
    next_step = "Look at what it is doing with 'slipway status', then try again."


def exit_code_of(error: SlipwayError) -> ExitCode:
    """The exit status that says what kind of error this is."""
    return _BY_STATUS.get(error.status, ExitCode.FAILED)
