"""One log line per request, as text or JSON, never with what was said in it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving_image.options import LogFormat
from serving_image.server.generation import Generation

logger = logging.getLogger("slipway.serve")
#: Probes ask for these every few seconds; their lines would bury the others.
UNLOGGED_PATHS = frozenset({"/health", "/ready", "/metrics"})


@dataclass
class RequestFacts:
    """What a route tells the log about its request."""

    generation: Generation | None = None


def facts_of(scope: Scope) -> RequestFacts:
    """The facts of the request being answered, for its route to fill."""
    facts: RequestFacts = scope["slipway.facts"]
    return facts


class AccessLog:
    """ASGI middleware that writes the line. A client that left before the answer began is logged as status 499."""

    def __init__(self, app: ASGIApp, clock: Callable[[], float]) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNLOGGED_PATHS:
            await self._app(scope, receive, send)
            return
        started_at, status = self._clock(), 499
        facts = scope["slipway.facts"] = RequestFacts()

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_status)
        except Exception:
            status = 500
            raise
        finally:
            fields = {"method": scope["method"], "path": scope["path"], "status": status}
            fields["seconds"] = round(self._clock() - started_at, 4)
            logger.info("request", extra={"fields": fields | _generation_fields(facts.generation)})


def _generation_fields(generation: Generation | None) -> dict[str, Any]:
    if generation is None:
        return {}
    usage, first = generation.usage, generation.seconds_to_first_token
    return {
        "request_id": generation.id,
        "stream": bool(generation.request.stream),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "finish_reasons": generation.finish_reasons,
        "seconds_to_first_token": None if first is None else round(first, 4),
    }


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in getattr(record, "fields", {}).items())
        line = f"{_time(record)} {record.levelname.lower()} {record.getMessage()}{fields}"
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def configure_logging(log_format: LogFormat) -> None:
    """Send this process's log lines to standard error in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.WARNING)
    logger.setLevel(logging.INFO)
