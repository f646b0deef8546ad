"""Machines to recommend: common ones, and the smallest of them that a model runs well on."""

from __future__ import annotations

from typing import NamedTuple

from control_plane.providers.base import HardwareOffer
from control_plane.sizing.memory import Model, fit

_GIB = 1 << 30
#: What "runs well" means: this much context, or the whole one of a model with less, for so many requests at once.
COMFORTABLE_CONTEXT = 4096
COMFORTABLE_REQUESTS = 2


class Machine(NamedTuple):
    """``memory_bytes`` is what an engine finds free of it."""

    name: str
    accelerator: str
    memory_bytes: int

    @property
    def offer(self) -> HardwareOffer:
        """As an offer that models can be planned onto. Processors are taken to be without bfloat16 instructions."""
        return HardwareOffer(
            id=self.name,
            provider="",
            name=self.name,
            accelerator=self.accelerator,
            accelerator_count=0 if self.accelerator == "cpu" else 1,
            memory_bytes=self.memory_bytes,
            price_per_hour=0.0,
            available=False,
            native_bfloat16=self.accelerator != "cpu",
        )


#: From small to large. A processor counts while models are small enough to be quick on it.
MACHINES = (
    Machine("a CPU with 8 GB", "cpu", 7 * _GIB),
    Machine("a CPU with 16 GB", "cpu", 14 * _GIB),
    Machine("one GPU with 16 GB", "NVIDIA T4", 15 * _GIB),
    Machine("one GPU with 24 GB", "NVIDIA L4", 22 * _GIB),
    Machine("one GPU with 48 GB", "NVIDIA L40S", 44 * _GIB),
    Machine("one GPU with 80 GB", "NVIDIA H100", 79 * _GIB),
    Machine("one GPU with 141 GB", "NVIDIA H200", 139 * _GIB),
    Machine("one GPU with 180 GB", "NVIDIA B200", 178 * _GIB),
    Machine("one GPU with 288 GB", "NVIDIA B300", 275 * _GIB),
)


def smallest_machine(model: Model) -> Machine | None:
    """The first of :data:`MACHINES` that ``model`` runs well on; None if it is too large for all."""
    context = min(COMFORTABLE_CONTEXT, model.config.context or COMFORTABLE_CONTEXT)
    for machine in MACHINES:
        if fit(model, machine.offer, max_model_len=context, concurrency=COMFORTABLE_REQUESTS).fits:
            return machine
    return None
