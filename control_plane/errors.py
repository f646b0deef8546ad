"""Errors that reach a person: a stable code, what is wrong, and what to do next.

``problems.py`` makes HTTP answers of them; this file imports no web framework, because every command needs it.
"""

from __future__ import annotations

from typing import Any, ClassVar


class SlipwayError(Exception):
    """Base of every error a user can meet. Subclasses fix ``status`` and ``code``; instances say the rest.

    :param detail: what is wrong, in a sentence for a person.
    :param next_step: what to do about it.
    :param extra: further members of the problem document.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    next_step: str = "Try again; if it persists, look at the server's log."

    def __init__(self, detail: str, next_step: str | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.next_step = next_step or type(self).next_step
        self.extra = extra


class NotFound(SlipwayError):
    """No such object, or it belongs to another team: the two look the same on purpose."""

    status, code = 404, "not_found"
    next_step = "Check the id; list what you can see with GET on the collection."


class Unauthenticated(SlipwayError):
    """No valid key or session came with the request."""

    status, code = 401, "unauthenticated"
    next_step = "Send 'Authorization: Bearer sk-slip-…', or sign in."


class Forbidden(SlipwayError):
    """Known, but not allowed."""

    status, code = 403, "forbidden"
    next_step = "Ask an administrator of your team."


class Conflict(SlipwayError):
    """The object's state does not permit this."""

    status, code = 409, "conflict"
    next_step = "Look at the object's present state and try again."


class Invalid(SlipwayError):
    """The request makes no sense as it is."""

    status, code = 422, "invalid"
    next_step = "Correct the named field and send it again."


class TooManyRequests(SlipwayError):
    """A rate limit was hit; ``retry_after_s`` in ``extra`` says how long to wait."""

    status, code = 429, "too_many_requests"
    next_step = "Wait, then try again."


class Unavailable(SlipwayError):
    """Something this needs is not there right now."""

    status, code = 503, "unavailable"
    next_step = "Try again in a few seconds."
