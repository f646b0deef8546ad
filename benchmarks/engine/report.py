"""The issue's table, every figure beside its floor, and the facts of the run, as Markdown. Nothing here is typed by
hand."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from engine.cases import CASES, PREFIX, SUFFIX
from engine.floors import Floor
from engine.machine import Machine
from engine.results import Key, Results
from engine.workload import Prompts

EXACT, INT8 = "slipway", "slipway-int8"
EXACT_DIRECT, INT8_DIRECT = "slipway-direct", "slipway-int8-direct"
VLLM, TRANSFORMERS = "vllm", "transformers"
VARIANTS = {EXACT: "exact", EXACT_DIRECT: "exact", INT8: "int8", INT8_DIRECT: "int8"}
#: Resident memory may be so many checkpoints and bytes beside the cache.
MEMORY_BOUNDS = {EXACT: 2.2, INT8: 1.2}
MEMORY_ALLOWANCE = 400e6


_METHOD = """A Llama of 246 million random parameters in bfloat16; prompts of random token ids, greedy, end tokens
ignored. Whatever has no "direct" in its name goes through HTTP, streamed, by one client in a process of its own;
"direct" goes through the engine process's sockets. Decoding rates count from the moment when the last request has its
first token to the first request's end. One-by-one generation takes 4 of the burst's requests in each round; static
and continuous batches of Transformers run in the first round only. At context 1,900, prefix caching is on for
everyone and the prompts are the same in all rounds, so that decoding is measured and not minutes of prefill;
elsewhere no prompt is ever repeated, and prefix caching is off but for the prefix case. Between steps is what the
engine's steps, each by its own clock on the thread that computes, leave of the time that passes. Beside a busy process
means beside an endless loop, free to move or pinned to the last core, as a share of the rate measured just before. The
cache in use is what the burst's own tokens fill.

Floors: a step reads every weight but the embedding once (2 bytes each, 1 for int8) and the keys and values of its
requests, and multiplies each token with each weight, `lm_head` only where a token is sampled; the floor is the longer
of bytes ÷ read bandwidth and operations ÷ the fastest matrix product, both as measured below. For the burst the
operations of all tokens count, or the weights once per token of the longest answer. For the start it is `import
torch` alone. Reading: best of five passes over 1 GiB by each of three torch reductions. Matrix products: best of
torch's at 256 and 512 rows and the model's shapes; they are what torch reaches, so that a better kernel may pass 100
%."""


@dataclass(frozen=True)
class Goal:
    """One target of the issue. ``value`` is compared with ``bound``: at least it, or at most."""

    case: str
    variant: str
    text: str
    ours: Key
    peer: Key | None
    value: Callable[[Results], float | None]
    bound: float
    at_least: bool

    def verdict(self, results: Results) -> str:
        """``yes``, ``no``, or ``—`` where a figure is missing."""
        value = self.value(results)
        if value is None:
            return "—"
        return "yes" if (value >= self.bound if self.at_least else value <= self.bound) else "**no**"


def _against(case: str, variant: str, ours: Key, peer: Key, bound: float, *, at_least: bool) -> Goal:
    text = f"{'≥' if at_least else '≤'} {bound:g} × {peer.contender}"
    if peer.contender == ours.contender:
        text = f"{'≥' if at_least else '≤'} {bound:g} × {peer.figure.removesuffix('_s')}"
    return Goal(case, variant, text, ours, peer, lambda results: results.ratio(ours, peer), bound, at_least)


def _alone(case: str, variant: str, text: str, ours: Key, bound: float, *, at_least: bool) -> Goal:
    return Goal(case, variant, text, ours, None, lambda results: results.median(ours), bound, at_least)


def _of_bandwidth(bound: float) -> Goal:
    ours = Key(EXACT, "one", "decode_tokens_per_s")

    def share(results: Results) -> float | None:
        rate = results.median(ours)
        return None if rate is None else rate / Floor.of("exact", _machine(results)).one_request()

    return Goal("one", "exact", f"≥ {bound:.0%} of bandwidth ÷ weight bytes", ours, None, share, bound, True)


def _of_memory(contender: str, moment: str) -> Goal:
    ours = Key(contender, "memory", f"rss_{moment}")

    def share(results: Results) -> float | None:
        rss = results.median(ours)
        kv = 0.0 if moment == "loaded" else results.median(Key(contender, "memory", "kv_in_use"))
        if rss is None or kv is None:
            return None
        checkpoint: int = results.about["checkpoint_bytes"]
        return rss / (MEMORY_BOUNDS[contender] * checkpoint + kv + MEMORY_ALLOWANCE)

    when = "loaded" if moment == "loaded" else "after the burst"
    text = f"{when}: ≤ {MEMORY_BOUNDS[contender]:g} × checkpoint + cache in use + 400 MB"
    return Goal("memory", VARIANTS[contender], text, ours, None, share, 1.0, False)


def goals() -> list[Goal]:
    """The issue's table, row by row."""
    output, decode, first = "output_tokens_per_s", "decode_tokens_per_s", "first_token_s"
    rows = []
    for ours, burst, one, prompt, context in ((EXACT, 1.8, 1.5, 0.65, 2.0), (INT8, 4.0, 2.5, 0.3, 3.0)):
        variant = VARIANTS[ours]
        for case, figure, bound in (("burst", output, burst), ("one", decode, one), ("context_1900", decode, context)):
            rows.append(_against(case, variant, Key(ours, case, figure), Key(VLLM, case, figure), bound, at_least=True))
        keys = Key(ours, "prompt_512", first), Key(VLLM, "prompt_512", first)
        rows.append(_against("prompt_512", variant, *keys, prompt, at_least=False))
        rows += [_of_memory(ours, "loaded"), _of_memory(ours, "burst")]
    one_by_one = Key(f"{TRANSFORMERS}-one-by-one", "burst", output)
    rows.append(_against("burst", "exact", Key(EXACT, "burst", output), one_by_one, 20, at_least=True))
    rows.append(_of_bandwidth(0.85))
    warm, cold = Key(EXACT, "prefix", "warm_s"), Key(EXACT, "prefix", "cold_s")
    rows.append(_against("prefix", "exact", warm, cold, 0.1, at_least=False))
    rows.append(_against("prefix", "exact", warm, Key(VLLM, "prefix", "warm_s"), 0.5, at_least=False))
    boot = Key(EXACT, "boot", first)
    rows.append(_alone("boot", "exact", "≤ 6 s", boot, 6, at_least=False))
    rows.append(_against("boot", "exact", boot, Key(VLLM, "boot", first), 0.05, at_least=False))
    for contender in (EXACT_DIRECT, INT8_DIRECT):
        variant = VARIANTS[contender]
        rows.append(
            _alone("idle", variant, "≤ 5 % of the step", Key(contender, "idle", "idle_share"), 0.05, at_least=False)
        )
        for figure in ("free_1", "pinned_1", "free_16", "pinned_16"):
            text = f"≥ 45 % of quiet ({figure.replace('_', ', ')})"
            rows.append(_alone("busy", variant, text, Key(contender, "busy", figure), 0.45, at_least=True))
    return sorted(rows, key=lambda goal: (list(TITLES).index(goal.case), goal.variant))


TITLES = {
    **{case.name: case.title for case in CASES},
    "boot": "process start to first token",
    "idle": "Python time between steps at batch 64",
    "busy": "another process busy on one core",
    "memory": "resident memory",
}


def _machine(results: Results) -> Machine:
    return Machine(**results.about["machine"])


def _number(value: float | None, figure: str) -> str:
    if value is None:
        return "—"
    if figure.startswith(("rss", "pss", "kv")):
        return f"{value / 1e6:,.0f} MB"
    if figure.startswith(("idle", "free", "pinned")):
        return f"{value:.1%}"
    if figure.endswith("tokens_per_s") or figure.startswith("quiet"):
        return f"{value:.1f} tok/s"
    return f"{value:.3f} s" if _is_time(figure) else f"{value:.2f}"


def _is_time(figure: str) -> bool:
    return figure.endswith("_s") and not figure.endswith("tokens_per_s")


def goals_table(results: Results) -> str:
    """Targets, medians, ratios, verdicts."""
    lines = ["| case | weights | target | Slipway | peer | ratio or share | met |", "|---|---|---|---:|---:|---:|---|"]
    for goal in goals():
        ours = _number(results.median(goal.ours), goal.ours.figure)
        peer = "" if goal.peer is None else _number(results.median(goal.peer), goal.peer.figure)
        if goal.peer is not None and goal.peer.contender in results.absent:
            peer = "not installed"
        value = goal.value(results)
        ratio = "—" if value is None else "" if value == results.median(goal.ours) else f"{value:.2f}"
        cells = (TITLES[goal.case], goal.variant, goal.text, ours, peer, ratio, goal.verdict(results))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ceilings(results: Results, contender: str) -> dict[tuple[str, str], float]:
    """By (case, figure): the best this machine allows, for the contenders that are Slipway's."""
    if contender not in VARIANTS:
        return {}
    floor = Floor.of(VARIANTS[contender], _machine(results))
    bursts = [floor.burst(Prompts(f"burst round {number + 1}").burst()) for number in range(results.about["rounds"])]
    return {
        ("burst", "output_tokens_per_s"): statistics.median(bursts),
        ("one", "decode_tokens_per_s"): floor.decode(1, 128 + 64),
        ("one", "first_token_s"): floor.prefill(128),
        ("prompt_512", "first_token_s"): floor.prefill(512),
        ("context_200", "decode_tokens_per_s"): floor.decode(16, 200 + 32),
        ("context_1900", "decode_tokens_per_s"): floor.decode(16, 1900 + 32),
        ("prefix", "cold_s"): floor.prefill(PREFIX + SUFFIX),
        ("prefix", "warm_s"): floor.prefill(SUFFIX, cached=PREFIX),
        ("boot", "first_token_s"): _machine(results).import_torch,
        ("idle", "tokens_per_s"): floor.decode(64, 64),
    }


def figures_table(results: Results) -> str:
    """Every figure of every contender: median, least and most, floor, share of it."""
    lines = [
        "| case | who | figure | median | min – max | floor or ceiling | reached |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    keys = dict.fromkeys(Key(r.contender, r.case, figure) for r in results.records for figure in r.figures)
    order = list(TITLES)
    for key in sorted((key for key in keys if key.case in TITLES), key=lambda key: order.index(key.case)):
        values = results.values(key)
        middle = statistics.median(values)
        best = ceilings(results, key.contender).get((key.case, key.figure))
        share = "" if best is None else f"{best / middle if _is_time(key.figure) else middle / best:.0%}"
        spread = f"{_number(min(values), key.figure)} – {_number(max(values), key.figure)}"
        bound = "" if best is None else _number(best, key.figure)
        cells = (TITLES[key.case], key.contender, key.figure, _number(middle, key.figure), spread, bound, share)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine_text(results: Results) -> str:
    """What the machine is and can do."""
    machine = _machine(results)
    lines = [
        f"- {machine.cores} cores of {machine.cpu}, {machine.memory_bytes / 2**30:.0f} GiB, load average "
        f"{machine.load_average_at_start:.2f} at the start; Python {machine.python}",
        "- versions: " + ", ".join(f"{name} {version}" for name, version in results.about["versions"].items()),
        "- reads, GB/s: "
        + ", ".join(f"{cores} core{'s' * (cores != '1')} {rate / 1e9:.1f}" for cores, rate in machine.read.items()),
        "- matrix products, Gop/s: " + ", ".join(f"{dtype} {rate / 1e9:.0f}" for dtype, rate in machine.gemm.items()),
        f"- `import torch` alone: {machine.import_torch:.2f} s",
        f"- checkpoint: {results.about['checkpoint_bytes'] / 1e6:.0f} MB",
        f"- the load client took {results.about.get('client_share', 0):.1%} of one core while requests ran",
    ]
    for name in (EXACT, INT8, VLLM):
        idle = results.median(Key(name, "idle_cpu", "cores"))
        if idle is not None:
            how = "its processes are stopped (SIGSTOP)" if name == VLLM else "one with prefix caching is there, idle,"
            lines.append(f"- {name} takes {idle:.3f} cores while idle; {how} outside its turn")
    lines += [f"- {name}: not installed. {how}" for name, how in results.absent.items()]
    lines += [f"- failed: round {r.round}, {r.contender}, {r.case}: {r.error[:300]}" for r in results.errors()]
    return "\n".join(lines)


def page(results: Results) -> str:
    """The whole page."""
    rounds = f"Medians over {results.about['rounds']} rounds; ratios are ratios of medians."
    return f"""# The engine beside its peers

{rounds} Written by `benchmarks/serving.py`; raw figures in `serving.json`.

{goals_table(results)}

## Every figure, with its floor

{_METHOD}

{figures_table(results)}

## The machine and the run

{machine_text(results)}
"""
