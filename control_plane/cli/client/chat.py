"""``slipway chat``: a conversation with a running instance, through its API URL."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import typer

from control_plane.cli.client.api import Api, Json
from control_plane.cli.client.find import find_instance
from control_plane.cli.client.instances import NameArgument
from control_plane.cli.client.output import print_json, say
from control_plane.cli.client.text import printable
from control_plane.cli.configuration import JsonOption
from control_plane.errors import Conflict, SlipwayError


class AnswerBrokeOff(SlipwayError):
    """The stream ended before the model had finished."""

    status, code = 502, "answer_broke_off"
    next_step = "Ask again; 'slipway show' says how the instance is."


class Delta(NamedTuple):
    """A piece of an answer."""

    text: str = ""
    finish_reason: str | None = None
    usage: Json | None = None


class Sampling(NamedTuple):
    """Options of a request; None is the server's own default."""

    max_tokens: int | None
    temperature: float | None


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(chat)


def chat(
    name: NameArgument,
    *,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Ask this, print the answer, end.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 always takes the likeliest token.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Talk to an instance. Without --message: a conversation on a terminal, or one question from a pipe."""
    interactive = message is None and sys.stdin.isatty()
    if interactive and as_json:
        raise typer.BadParameter("needs --message", param_hint="--json")
    if message is None and not interactive:
        message = sys.stdin.read().strip()
    if not interactive and not message:
        raise typer.BadParameter("is empty", param_hint="--message")
    history: list[Json] = [{"role": "system", "content": system}] if system else []
    with Api.open() as api:
        conversation = Conversation(api, _running(api, name), history, Sampling(max_tokens, temperature))
        if message is None:
            _converse(conversation)
        elif as_json:
            print_json(conversation.answer(message))
        else:
            _print_answer(conversation.ask(message))


class Conversation:
    """Messages so far, and the instance they go to."""

    def __init__(self, api: Api, instance: Json, history: list[Json], sampling: Sampling) -> None:
        self.name: str = instance["name"]
        self._api = api
        self._model: str = instance["model"]
        # By way of the address that this command knows: a tunnel may lead there where the public URL does not.
        self._path = f"{urlsplit(instance['api_url']).path.rstrip('/')}/chat/completions"
        self._history = history
        self._sampling = {key: value for key, value in sampling._asdict().items() if value is not None}

    def ask(self, message: str) -> Iterator[Delta]:
        """The answer as it is made; it joins the history once it is complete.

        :raises AnswerBrokeOff: the stream ended early.
        """
        messages = [*self._history, {"role": "user", "content": message}]
        body = {"model": self._model, "messages": messages, "stream": True, **self._sampling}
        body["stream_options"] = {"include_usage": True}
        parts: list[str] = []
        finished = False
        with self._api.stream("POST", self._path, json=body) as lines:
            for delta in _deltas(lines):
                parts.append(delta.text)
                finished = finished or delta.finish_reason is not None
                yield delta
        if not finished:
            raise AnswerBrokeOff(f"the answer of {self.name} broke off")
        self._history = [*messages, {"role": "assistant", "content": "".join(parts)}]

    def answer(self, message: str) -> Json:
        """The whole answer, with why it ended and what it used."""
        deltas = list(self.ask(message))
        return {
            "model": self._model,
            "message": "".join(delta.text for delta in deltas),
            "finish_reason": next(delta.finish_reason for delta in deltas if delta.finish_reason),
            "usage": next((delta.usage for delta in deltas if delta.usage), None),
        }


def _deltas(lines: Iterator[str]) -> Iterator[Delta]:
    """Server-sent events of a chat completion; comment lines, which tell why it takes long, are passed on."""
    for line in lines:
        if line.startswith(":") and (note := line[1:].strip()):
            say(note)
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event: dict[str, Any] = json.loads(data)
        if "error" in event:
            raise AnswerBrokeOff(str(event["error"].get("message", event["error"])))
        choice = event["choices"][0] if event.get("choices") else {}
        text = choice.get("delta", {}).get("content") or ""
        yield Delta(text, choice.get("finish_reason"), event.get("usage"))


def _running(api: Api, name: str) -> Json:
    instance = find_instance(api, name)
    if instance["phase"] not in {"running", "sleeping"}:
        ended = instance["phase"] in {"stopped", "failed"}
        raise Conflict(
            f"{instance['name']} is {instance['phase']}: {instance['reason']}",
            f"Start it with 'slipway start {name}'." if ended else f"See how far it is with 'slipway show {name}'.",
        )
    return instance


def _print_answer(deltas: Iterator[Delta]) -> None:
    for delta in deltas:
        sys.stdout.write(printable(delta.text))
        sys.stdout.flush()
    sys.stdout.write("\n")


def _converse(conversation: Conversation) -> None:
    import readline  # noqa: F401 (gives input() its editing keys)

    say(f"talking to {conversation.name}; Ctrl-C cuts an answer short, Ctrl-D ends")
    while True:
        try:
            message = input("> ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:  # meant for an answer that has just ended: not for the conversation
            print()
            continue
        if not message:
            continue
        try:
            _print_answer(conversation.ask(message))
        except KeyboardInterrupt:
            print("\n(cut short)")
        except SlipwayError as error:
            say(f"error: {error.detail}\n  {error.next_step}")
