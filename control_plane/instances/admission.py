"""May this launch at all, and on what? Asked before anything is spent; talks to the hub and the providers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from control_plane.catalog.support import support_of
from control_plane.context import Context
from control_plane.errors import Invalid
from control_plane.hub import service as hub
from control_plane.hub.facts import ModelFacts
from control_plane.hub.ids import parse_revision
from control_plane.instances.schemas import LaunchRequest
from control_plane.providers.base import HardwareOffer
from control_plane.providers.registry import all_offers
from control_plane.sizing.memory import Fit, fit


class NotServed(Invalid):
    """The engine cannot run this model yet."""

    code = "not_served"
    next_step = "Pick a model that GET /models lists as supported."


class DoesNotFit(Invalid):
    """No hardware here has room for it."""

    code = "does_not_fit"
    next_step = "Pick a smaller model, a shorter context (engine.max_model_len), or hardware with more memory."


class UnknownHardware(Invalid):
    """No provider offers it."""

    code = "unknown_hardware"
    next_step = "Leave hardware out to have it chosen, or name one that GET /hardware lists."


@dataclass(frozen=True)
class Admission:
    """What will be launched: a model pinned to a commit, and where."""

    model: str
    revision: str
    commit_sha: str
    fit: Fit
    kv_cache_is_given: bool

    @property
    def offer(self) -> HardwareOffer:
        """The hardware."""
        return self.fit.offer

    @property
    def memory_bytes(self) -> int:
        """What a replica holds of each device, or of the machine's memory.

        An engine whose cache has no given size takes what is free of its device, so there it is alone.
        """
        if self.fit.memory is None:
            return 0
        whole = self.fit.accelerator_count and not self.kv_cache_is_given
        return self.offer.memory_bytes if whole else self.fit.memory.total


def admit(context: Context, request: LaunchRequest, *, freed_bytes: int = 0) -> Admission:
    """Judge ``request``.

    :param freed_bytes: memory of each device, or of the machine, that will be given back before this is started.
    :raises SlipwayError: one of control_plane.hub.errors, :class:`NotServed`, :class:`DoesNotFit` or
        :class:`UnknownHardware`, each with what would work.
    """
    revision = parse_revision(request.revision)
    facts = hub.resolve(context.settings, hub.parse_model(request.model), revision)
    support = support_of(facts)
    if not support.supported:
        raise NotServed(f"{facts.id} cannot be launched. {support.why_not}")
    offers = [
        replace(offer, memory_bytes=offer.memory_bytes + freed_bytes) for offer in _offers(context, request.hardware)
    ]
    engine = request.engine
    fits = [
        fit(facts, offer, max_model_len=engine.max_model_len, kv_cache_memory=engine.kv_cache_memory)
        for offer in offers
    ]
    return Admission(facts.id, revision, facts.sha, _best(facts, fits), engine.kv_cache_memory is not None)


def _offers(context: Context, hardware: str | None) -> list[HardwareOffer]:
    offers = all_offers(context.providers)
    if hardware is None:
        return offers
    named = [offer for offer in offers if offer.id == hardware]
    if not named:
        known = ", ".join(offer.id for offer in offers) or "none"
        raise UnknownHardware(f"there is no hardware {hardware!r}; there is: {known}")
    return named


def _best(facts: ModelFacts, fits: list[Fit]) -> Fit:
    """What can be had now before what cannot, accelerators before processors, then the cheapest."""
    fitting = [candidate for candidate in fits if candidate.fits]
    if not fitting:
        why = "; ".join(f"{candidate.offer.id}: {candidate.why_not}" for candidate in fits) or "there is no hardware"
        raise DoesNotFit(f"{facts.id} does not fit. {why}")

    def rank(candidate: Fit) -> tuple[bool, bool, float, str]:
        offer = candidate.offer
        return not offer.available, offer.accelerator_count == 0, candidate.price_per_hour, offer.id

    return min(fitting, key=rank)
