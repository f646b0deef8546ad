"""The results as a page of Markdown. Nothing in it is typed by hand, and nothing that was not measured is there."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu.results import Ceilings, Figure, Results
from benchmarks.gpu.targets import TARGETS, TITLES, Target

_METHOD = """Times are medians; a kernel's call is replayed as a CUDA graph between two events, after 256 MiB were
read, so that its inputs come from memory. Bytes and operations are the least that the case must move and compute. A
floor is bytes ÷ the copy's bandwidth or operations ÷ the product's rate, both as measured in this run; the share is the
longer floor ÷ the time. Over 100 %, part of the inputs came from the cache, or the kernel beats the ceiling's own."""


def page(results: Results) -> str:
    """The whole page."""
    parts = [f"# {results.about['device']}, {results.about['date']}", about(results)]
    if results.tests:
        parts += ["## Tests on the GPU", tests(results)]
    if results.ceilings and results.figures:
        parts += ["## Targets", targets(results, results.ceilings), "## Figures", _METHOD]
        for row, title in TITLES.items():
            figures = [figure for figure in results.figures if figure.row == row]
            if figures:
                parts += [f"### {title}", table(figures, results.ceilings)]
    return "\n\n".join(parts) + "\n"


def about(results: Results) -> str:
    """The machine, the versions, the ceilings, and what went wrong."""
    lines = [f"- {name}: {value}" for name, value in results.about.items() if name not in {"device", "date"}]
    if results.ceilings:
        lines.append(f"- copy of 4 GiB: {results.ceilings.copy / 1e12:.2f} TB/s, reads and writes counted")
        lines.append(f"- bfloat16 product of 8192³: {results.ceilings.matmul / 1e12:.0f} TFLOP/s")
    lines += [f"- **{part} failed**: {error}" for part, error in results.parts.items() if error]
    return "\n".join(lines)


def tests(results: Results) -> str:
    """Counts, and every failure by name."""
    counts = ", ".join(f"{results.tests[name]} {name}" for name in ("passed", "failed", "skipped"))
    lines = [f"{counts}, in {results.tests['seconds']:.0f} s."]
    lines += [f"- failed: `{name}`" for name in results.tests["failures"]]
    return "\n".join(lines)


def targets(results: Results, ceilings: Ceilings) -> str:
    """Each target with the worst and the best figure that it is about."""
    lines = ["| case | target | worst | best | figures that meet it |", "|---|---|---:|---:|---|"]
    for target in TARGETS:
        values = sorted(target.values(results.figures, ceilings), reverse=not target.at_least)
        if not values:
            cells = ("—", "—", "not measured")
        else:
            met = sum(target.met(value) for value in values)
            word = "all" if met == len(values) else f"**{met} of {len(values)}**"
            cells = (_value(values[0], target), _value(values[-1], target), word)
        lines.append("| " + " | ".join((TITLES[target.row], target.text, *cells)) + " |")
    return "\n".join(lines)


def table(figures: list[Figure], ceilings: Ceilings) -> str:
    """Figures of one row with their floors and peers."""
    lines = [
        "| case | time | TB/s | TFLOP/s | floor by bytes | by operations | share | beside |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for figure in figures:
        by_bytes, by_operations = figure.floors(ceilings)
        share = figure.share(ceilings)
        cells = (
            figure.case,
            _seconds(figure.seconds),
            f"{figure.bytes / figure.seconds / 1e12:.2f}" if figure.bytes else "",
            f"{figure.operations / figure.seconds / 1e12:.0f}" if figure.operations else "",
            _seconds(by_bytes) if figure.bytes else "",
            _seconds(by_operations) if figure.operations else "",
            "" if share is None else f"{share:.0%}",
            "; ".join(_beside(figure)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _beside(figure: Figure) -> Iterator[str]:
    for name, seconds in figure.peers.items():
        yield f"{name} {_seconds(seconds)} ({seconds / figure.seconds:.2f} ×)"
    for name, value in figure.values.items():
        yield f"{name} {value:.4g}"
    if figure.note:
        yield figure.note


def _value(value: float, target: Target) -> str:
    if target.unit == "%":
        return f"{value:.0%}"
    return f"{value:.2f} {target.unit}" if value < 100 else f"{value:.0f} {target.unit}"


def _seconds(seconds: float) -> str:
    """In the largest unit in which it is at least 1."""
    unit, factor = next((pair for pair in (("s", 1.0), ("ms", 1e3)) if seconds * pair[1] >= 1), ("µs", 1e6))
    value = seconds * factor
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
