"""Errors that a person who started ``slipway-serve`` can act on."""

from __future__ import annotations


class StartupError(Exception):
    """The model cannot be served as asked. The process prints one line and exits 2.

    :param message: what is wrong.
    :param next_step: what would work.
    """

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(f"{message} {next_step}")
        self.message = message
        self.next_step = next_step
