"""How long to wait before a process that ended is started again."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Delays that double with each early death and start over once a process has lived long enough. Seconds."""

    initial_s: float = 0.2
    maximum_s: float = 10.0
    healthy_after_s: float = 30.0
    _failures: int = field(default=0, init=False)

    def after(self, lived_s: float) -> float:
        """The delay after a process that lived for ``lived_s``."""
        self._failures = 1 if lived_s >= self.healthy_after_s else self._failures + 1
        return float(min(self.maximum_s, self.initial_s * 2 ** (self._failures - 1)))
