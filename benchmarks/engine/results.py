"""What was measured, and the medians over the rounds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Key(NamedTuple):
    """One figure: whose, in which case, which."""

    contender: str
    case: str
    figure: str


@dataclass(frozen=True)
class Record:
    """One case of one contender in one round; ``error`` says why ``figures`` is empty."""

    round: int
    contender: str
    case: str
    figures: dict[str, float]
    error: str = ""


@dataclass
class Results:
    """All records, with the facts of the run."""

    about: dict[str, Any]
    records: list[Record] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def values(self, key: Key) -> list[float]:
        mine = (r for r in self.records if (r.contender, r.case) == (key.contender, key.case))
        return [record.figures[key.figure] for record in mine if key.figure in record.figures]

    def median(self, key: Key) -> float | None:
        """None if no round measured it."""
        values = self.values(key)
        return statistics.median(values) if values else None

    def ratio(self, ours: Key, theirs: Key) -> float | None:
        """Of the medians; None if either is missing."""
        mine, other = self.median(ours), self.median(theirs)
        return None if mine is None or other is None else mine / other

    def errors(self) -> Sequence[Record]:
        return [record for record in self.records if record.error]

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        unfinished = path.with_suffix(".part")
        content = {"about": self.about, "absent": self.absent, "records": [asdict(r) for r in self.records]}
        unfinished.write_text(json.dumps(content, indent=1) + "\n")
        unfinished.rename(path)

    @classmethod
    def read(cls, path: Path) -> Results:
        content = json.loads(path.read_text())
        return cls(content["about"], [Record(**record) for record in content["records"]], content["absent"])
