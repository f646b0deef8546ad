"""The clients of a soak: each sends a request as planned, and checks what comes back."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.soak.plans import Plan

_TIMEOUT = 300.0


@dataclass
class Tally:
    """What became of the requests. ``answers`` are the texts of the repeatable ones, by plan."""

    requests: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    problems: list[str] = field(default_factory=list)
    answers: list[tuple[Plan, str]] = field(default_factory=list)


class Clients:
    """Clients of the server at ``url``."""

    def __init__(self, url: str, tally: Tally) -> None:
        self._url = f"{url}/v1/completions"
        self._tally = tally

    async def run(self, plans: Iterable[Plan], concurrency: int) -> None:
        """Send all of ``plans``, so many at a time, and close every connection."""
        queue: Iterator[Plan] = iter(plans)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=concurrency)
        async with httpx.AsyncClient(timeout=_TIMEOUT, limits=limits) as http, asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._work(http, queue))

    async def _work(self, http: httpx.AsyncClient, queue: Iterator[Plan]) -> None:
        for plan in queue:
            self._tally.requests[plan.kind] += 1
            try:
                problem = await self._send(http, plan)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
            if problem is not None:
                self._tally.problems.append(f"{plan.kind}: {problem}")

    async def _send(self, http: httpx.AsyncClient, plan: Plan) -> str | None:
        """Do as planned; what was wrong about the answer, or None."""
        match plan.kind:
            case "bad":
                answer = await http.post(self._url, json=plan.body)
                return None if answer.status_code == 400 else f"status {answer.status_code} for {plan.body}"
            case "cancel":
                try:
                    await asyncio.wait_for(http.post(self._url, json=plan.body), plan.patience / 1000)
                except TimeoutError:
                    self._tally.requests["cancelled in time"] += 1
                return None
            case "whole":
                return self._check_whole(plan, await http.post(self._url, json=plan.body))
            case _:
                return await self._stream(http, plan)

    def _check_whole(self, plan: Plan, answer: httpx.Response) -> str | None:
        if answer.status_code != 200:
            return f"status {answer.status_code}: {answer.text}"
        body = answer.json()
        texts = {choice["index"]: choice["text"] for choice in body["choices"]}
        reasons = [choice["finish_reason"] for choice in body["choices"]]
        return self._check(plan, texts, reasons) or self._check_usage(plan, body["usage"])

    async def _stream(self, http: httpx.AsyncClient, plan: Plan) -> str | None:
        body = plan.body | {"stream_options": {"include_usage": True}}
        texts: dict[int, str] = {}
        reasons: list[str] = []
        usage: dict[str, Any] | None = None
        ended, num_events = False, 0
        async with http.stream("POST", self._url, json=body) as answer:
            if answer.status_code != 200:
                return f"status {answer.status_code}"
            async for line in answer.aiter_lines():
                if not line.startswith("data: "):
                    continue
                num_events += 1
                if plan.kind == "leave" and num_events > plan.patience:
                    self._tally.requests["left in mid-stream"] += 1
                    return None
                if line == "data: [DONE]":
                    ended = True
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    return f"{event['error']}"
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
                    reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
        if not ended or usage is None:
            return "the stream has no end"
        return self._check(plan, texts, reasons) or self._check_usage(plan, usage)

    def _check(self, plan: Plan, texts: dict[int, str], reasons: list[str]) -> str | None:
        if len(texts) != plan.num_sequences or len(reasons) != plan.num_sequences:
            return f"{len(texts)} answers with {len(reasons)} ends instead of {plan.num_sequences}"
        if plan.is_repeatable:
            self._tally.answers.append((plan, texts[0]))
        return None

    def _check_usage(self, plan: Plan, usage: dict[str, Any]) -> str | None:
        self._tally.tokens += usage["completion_tokens"]
        most = plan.num_sequences * plan.body["max_tokens"]
        exact = plan.body["ignore_eos"] and "stop" not in plan.body
        if usage["completion_tokens"] > most or (exact and usage["completion_tokens"] < most):
            return f"{usage['completion_tokens']} tokens instead of {most}"
        return None
