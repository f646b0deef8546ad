"""What a run of ``run.sh`` found; one JSON file that each part adds to, so that a part that dies loses nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Ceilings(NamedTuple):
    """What this device reached in the same run: bytes per second of a copy, read and written ones counted, and
    operations per second of a bfloat16 product of 8192³."""

    copy: float
    matmul: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement.

    :ivar row: the row of the issue's table that it belongs to, or of ours; see :mod:`benchmarks.gpu.targets`.
    :ivar seconds: the median.
    :ivar bytes: the least that must be moved through the device's memory; 0: not counted.
    :ivar operations: the least that must be computed; 0: not counted.
    :ivar peers: seconds that others take for the same.
    :ivar values: what is measured beside the time, by name.
    :ivar note: what a reader must know about how it was measured.
    """

    row: str
    case: str
    seconds: float
    bytes: int = 0
    operations: int = 0
    peers: dict[str, float] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    note: str = ""

    def floors(self, ceilings: Ceilings) -> tuple[float, float]:
        """Seconds that the bytes take at the copy's rate, and the operations at the product's."""
        return self.bytes / ceilings.copy, self.operations / ceilings.matmul

    def share(self, ceilings: Ceilings) -> float | None:
        """The longer floor ÷ the time; None if nothing was counted."""
        floor = max(self.floors(ceilings))
        return floor / self.seconds if floor else None


@dataclass
class Results:
    """``about`` names device, versions and date; ``parts`` has an empty text for each part that ended well, else what
    went wrong; ``tests`` is the correctness part's account."""

    about: dict[str, Any]
    ceilings: Ceilings | None = None
    parts: dict[str, str] = field(default_factory=dict)
    tests: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(asdict(self), indent=1) + "\n")
        unfinished.rename(path)

    @classmethod
    def read(cls, path: Path) -> Results:
        content = json.loads(path.read_text())
        ceilings = content["ceilings"]
        return cls(
            content["about"],
            Ceilings(*ceilings) if ceilings else None,
            content["parts"],
            content["tests"],
            [Figure(**figure) for figure in content["figures"]],
        )


@contextmanager
def updating(path: Path) -> Iterator[Results]:
    """Change the file's results; they are written even if the change ends with an exception."""
    results = Results.read(path)
    try:
        yield results
    finally:
        results.write(path)
