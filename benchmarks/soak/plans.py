"""The requests of a soak: a stream of them from a seed, each with what must come of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

#: ``whole`` and ``stream`` wait for their answer; ``leave`` goes in mid-stream, ``cancel`` before an answer; ``bad``
#: must be refused.
Kind = Literal["whole", "stream", "leave", "cancel", "bad"]
KINDS: dict[Kind, float] = {"whole": 0.40, "stream": 0.36, "leave": 0.10, "cancel": 0.06, "bad": 0.08}
MAX_MODEL_LEN = 512
VOCAB_SIZE = 1024
LONGEST_ANSWER = 64
#: The first ids are special tokens; the last may be any.
FIRST_PLAIN_TOKEN = 8

_SAMPLING: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 0.8, "top_k": 20, "seed": 7},
    {"temperature": 1.0, "min_p": 0.05, "repetition_penalty": 1.1},
    {"temperature": 0.7, "presence_penalty": 0.5, "frequency_penalty": 0.5},
    {"temperature": 0, "logprobs": 3},
    {"temperature": 1.0, "logit_bias": {"17": 5.0, "99": -100.0}},
)
_BAD: tuple[dict[str, Any], ...] = (
    {"prompt": [VOCAB_SIZE + 5]},
    {"prompt": [FIRST_PLAIN_TOKEN] * (MAX_MODEL_LEN + 1)},
    {"prompt": []},
    {"n": 100_000},
    {"temperature": -1},
    {"top_p": 7},
    {"max_tokens": "many"},
    {"no_such_field": 1},
    {"logit_bias": {"999999": 1.0}},
)


@dataclass(frozen=True)
class Plan:
    """One request.

    :ivar patience: events after which a client that leaves goes, or milliseconds after which one that cancels does.
    """

    kind: Kind
    body: dict[str, Any]
    patience: int = 0

    @property
    def num_sequences(self) -> int:
        return int(self.body.get("n", 1))

    @property
    def is_repeatable(self) -> bool:
        """Whether the same request always has the same answer."""
        return self.kind in ("whole", "stream") and self.body["temperature"] == 0 and self.num_sequences == 1


def plans(seed: int) -> Iterator[Plan]:
    """Requests without end, the same for the same seed."""
    choose = random.Random(seed)
    prefixes = [_tokens(choose, choose.choice((64, 100, 160, 256))) for _ in range(6)]
    while True:
        (kind,) = choose.choices(list(KINDS), list(KINDS.values()))
        body = _body(choose, prefixes)
        match kind:
            case "bad":
                yield Plan(kind, body | choose.choice(_BAD))
            case "stream":
                yield Plan(kind, body | {"stream": True})
            case "leave":
                yield Plan(kind, body | {"stream": True}, patience=choose.randint(1, 20))
            case "cancel":
                yield Plan(kind, body, patience=choose.randint(1, 100))
            case _:
                yield Plan(kind, body)


def _body(choose: random.Random, prefixes: list[list[int]]) -> dict[str, Any]:
    prompt = _tokens(choose, min(int(choose.expovariate(1 / 60)) + 1, MAX_MODEL_LEN - 256 - LONGEST_ANSWER))
    if choose.random() < 0.3:
        prompt = choose.choice(prefixes) + prompt
    body: dict[str, Any] = {
        "prompt": prompt,
        "max_tokens": min(int(choose.expovariate(1 / 14)) + 1, LONGEST_ANSWER),
        "ignore_eos": choose.random() < 0.7,
        **choose.choice(_SAMPLING),
    }
    if choose.random() < 0.12:
        body["n"] = choose.randint(2, 3)
    if choose.random() < 0.2:
        body["priority"] = choose.randint(-2, 2)
    if choose.random() < 0.1:
        body["stop"] = ["the", " a"]
    return body


def _tokens(choose: random.Random, length: int) -> list[int]:
    return [choose.randrange(FIRST_PLAIN_TOKEN, VOCAB_SIZE) for _ in range(length)]
