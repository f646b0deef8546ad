"""What a soak has shown, as criteria, a table and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.soak.client import Tally
from benchmarks.soak.server import State

_MIB = 2**20


@dataclass(frozen=True)
class Criterion:
    """Something that must hold; ``measured`` is for a person."""

    name: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class Soak:
    """A finished run. ``warm`` and ``after`` are the states, idle, after the warm-up and at the end.

    :ivar metrics: the server's own, at the end.
    :ivar mismatches: repeatable answers, of ``num_repeated``, that were different when asked for alone.
    :ivar most_growth: of resident memory since the warm-up, as a share of it.
    """

    num_requests: int
    num_warm_up: int
    concurrency: int
    seconds: float
    tally: Tally
    before: State
    warm: State
    after: State
    metrics: dict[str, float]
    log: str
    exit_status: int
    num_repeated: int
    mismatches: int
    most_growth: float

    @property
    def criteria(self) -> list[Criterion]:
        """All of them, in the order of the table."""
        metrics = self.metrics
        opened, ended = (int(metrics[f"vllm:request_{name}"]) for name in ("params_n_sum", "success_total"))
        usage = metrics["vllm:kv_cache_usage_perc"]
        leaks = [line for line in self.log.splitlines() if "held by no request" in line or "Traceback" in line]
        preemptions = int(metrics["vllm:num_preemptions_total"])
        same = self.num_repeated - self.mismatches
        return [
            Criterion(
                "every answer was as it should be", f"{len(self.tally.problems)} were not", not self.tally.problems
            ),
            Criterion(
                "greedy answers are those given alone",
                f"{same} of {self.num_repeated}",
                self.num_repeated > 0 and self.mismatches == 0,
            ),
            Criterion("memory was short", f"{preemptions} preemptions", preemptions > 0),
            Criterion("every sequence ended", f"{ended} of {opened}", ended == opened),
            Criterion("every block is free", f"{usage:.0%} of the KV cache in use", usage == 0),
            Criterion("no leak and no traceback in the log", f"{len(leaks)} lines", not leaks),
            self._same("tasks of the server", self.before.tasks, self.after.tasks),
            self._same("open files of the server", self.before.server.files, self.after.server.files),
            self._same("open files of the engine", self.before.engine.files, self.after.engine.files),
            self._same("threads of the server", self.warm.server.threads, self.after.server.threads),
            self._same("threads of the engine", self.warm.engine.threads, self.after.engine.threads),
            self._grown("memory of the server", self.warm.server.resident, self.after.server.resident),
            self._grown("memory of the engine", self.warm.engine.resident, self.after.engine.resident),
            Criterion("it drains and exits", f"status {self.exit_status}", self.exit_status == 0),
        ]

    @property
    def failures(self) -> list[Criterion]:
        """Criteria that do not hold."""
        return [criterion for criterion in self.criteria if not criterion.holds]

    def _same(self, name: str, before: int, after: int) -> Criterion:
        return Criterion(f"{name}: no more than before", f"{before} → {after}", after <= before)

    def _grown(self, name: str, warm: int, after: int) -> Criterion:
        growth = after / warm - 1
        text = f"{warm / _MIB:.1f} → {after / _MIB:.1f} MiB ({growth:+.2%})"
        return Criterion(f"{name}: at most {self.most_growth:+.0%} since the warm-up", text, growth <= self.most_growth)

    def page(self) -> str:
        """Everything as Markdown."""
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.tally.requests.items()))
        rate = self.num_requests / self.seconds
        lines = [
            f"{self.num_requests} requests, {self.concurrency} at a time, in {self.seconds:.0f} s "
            f"({rate:.0f} a second): {counts}; {self.tally.tokens} tokens in answers that were read to their end. "
            f"Warm-up: the first {self.num_warm_up}.",
            "",
            "| criterion | measured | |",
            "|---|---|---|",
        ]
        lines += [f"| {c.name} | {c.measured} | {'holds' if c.holds else '**FAILS**'} |" for c in self.criteria]
        lines += ["", *(f"- {problem}" for problem in self.tally.problems[:20])] if self.tally.problems else []
        return "\n".join(lines) + "\n"

    def as_json(self) -> dict[str, Any]:
        """The figures behind the page."""
        return {
            "num_requests": self.num_requests,
            "num_warm_up": self.num_warm_up,
            "concurrency": self.concurrency,
            "seconds": round(self.seconds, 1),
            "requests": dict(sorted(self.tally.requests.items())),
            "tokens": self.tally.tokens,
            "criteria": [asdict(criterion) for criterion in self.criteria],
            "states": {"before": asdict(self.before), "warm": asdict(self.warm), "after": asdict(self.after)},
            "metrics": {name: value for name, value in sorted(self.metrics.items()) if _is_kept(name)},
        }


def _is_kept(name: str) -> bool:
    return name.startswith("vllm:") and not name.endswith("_bucket")
