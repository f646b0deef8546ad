"""What every measurement of a kernel shares: where it runs, how it is timed, where its figure goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from benchmarks.gpu.results import Figure
from benchmarks.gpu.timing import Timer


@dataclass(frozen=True, slots=True)
class Bench:
    """``keep`` takes each figure as soon as it is there. ``say`` prints what went wrong."""

    device: torch.device
    timer: Timer
    keep: Callable[[Figure], None]
    say: Callable[[str], None]

    def randn(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """Random values: products of zeros run faster than real ones."""
        return torch.randn(shape, device=self.device, dtype=dtype)

    def figure(
        self,
        row: str,
        case: str,
        call: Callable[[], object],
        *,
        moved: int = 0,
        operations: int = 0,
        peers: Mapping[str, Callable[[], object]] | None = None,
        note: str = "",
    ) -> None:
        """Measure a call and its peers. A peer that fails is left out, with a word; a call that fails is said and
        leaves no figure."""
        try:
            timing = self.timer.measure(call)
        except Exception as error:
            self.say(f"{row}, {case}: {type(error).__name__}: {str(error)[:300]}")
            return
        others = {name: seconds for name, peer in (peers or {}).items() if (seconds := self._peer(name, peer))}
        notes = [note] if note else []
        if not timing.captured:
            notes.append("not captured: host time may be in it")
        self.keep(Figure(row, case, timing.median, moved, operations, others, {}, "; ".join(notes)))

    def _peer(self, name: str, call: Callable[[], object]) -> float | None:
        try:
            return self.timer.measure(call).median
        except Exception as error:
            self.say(f"{name}: {type(error).__name__}: {str(error)[:300]}")
            return None
