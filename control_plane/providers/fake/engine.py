"""The engines of an imaginary place over HTTP: they prove who they are, want their key, and say the same always."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

from control_plane.providers.fake.place import EngineAnswer, Place

#: What every completion says.
WORDS = ("This", " engine", " is", " imaginary:", " no", " model", " runs", " here.")
_SECONDS_PER_WORD = 0.1


class Reply(NamedTuple):
    """An answer; ``events`` instead of ``body`` where it is a stream."""

    status: int
    body: dict[str, Any] | None
    headers: dict[str, str]
    events: Iterator[str] | None = None


def get(place: Place, name: str, path: str, key: str) -> Reply | None:
    """``GET path`` of the engine of ``name``; None where nothing answers."""
    answer = place.answer(name)
    if answer is None:
        return None
    if path in {"/ready", "/health"}:
        status = HTTPStatus.OK if answer.is_ready or path == "/health" else HTTPStatus.SERVICE_UNAVAILABLE
        return _reply(answer, status, {"ready": answer.is_ready})
    if path != "/v1/models":
        return _reply(answer, HTTPStatus.NOT_FOUND, _error("no such route"))
    model = place.accept(name, key)
    if model is None:
        return _wrong_key(answer)
    place.finish(name)
    return _reply(answer, HTTPStatus.OK, {"object": "list", "data": [{"id": model, "object": "model"}]})


def post(place: Place, name: str, path: str, key: str, body: dict[str, Any]) -> Reply | None:
    """A completion by the engine of ``name``; None where nothing answers."""
    answer = place.answer(name)
    if answer is None:
        return None
    if path not in {"/v1/completions", "/v1/chat/completions"}:
        return _reply(answer, HTTPStatus.NOT_FOUND, _error("no such route"))
    if not answer.is_ready:
        return _reply(answer, HTTPStatus.SERVICE_UNAVAILABLE, _error("the engine is loading"))
    model = place.accept(name, key)
    if model is None:
        return _wrong_key(answer)
    is_chat = path == "/v1/chat/completions"
    if body.get("stream"):
        headers = {"x-boot-id": answer.boot_token, "Content-Type": "text/event-stream"}
        return Reply(HTTPStatus.OK, None, headers, _events(place, name, model, _words(body), is_chat=is_chat))
    place.finish(name)
    return _reply(answer, HTTPStatus.OK, _completion(model, "".join(_words(body)), is_chat=is_chat))


def _words(body: dict[str, Any]) -> list[str]:
    limit = body.get("max_tokens")
    count = limit if isinstance(limit, int) and limit > 0 else len(WORDS)
    return [WORDS[number % len(WORDS)] for number in range(min(count, 1000))]


def _events(place: Place, name: str, model: str, words: list[str], *, is_chat: bool) -> Iterator[str]:
    """One event per word.

    :raises ConnectionResetError: the engine ends before its answer does.
    """
    try:
        for word in words:
            if place.answer(name) is None:
                raise ConnectionResetError("the engine ended in the middle of its answer")
            choice = {"delta": {"content": word}} if is_chat else {"text": word}
            yield f"data: {json.dumps({'model': model, 'choices': [{'index': 0, **choice}]})}\n\n"
            time.sleep(_SECONDS_PER_WORD)
        yield "data: [DONE]\n\n"
    finally:
        place.finish(name)


def _completion(model: str, text: str, *, is_chat: bool) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
    kind = "chat.completion" if is_chat else "text_completion"
    return {"object": kind, "model": model, "choices": [{"index": 0, "finish_reason": "stop", **said}]}


def _reply(answer: EngineAnswer, status: int, body: dict[str, Any]) -> Reply:
    return Reply(status, body, {"x-boot-id": answer.boot_token})


def _wrong_key(answer: EngineAnswer) -> Reply:
    return _reply(answer, HTTPStatus.UNAUTHORIZED, _error("wrong key"))


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}
