"""A model id → everything a person needs before launching it."""

from __future__ import annotations

from control_plane.catalog.schemas import Resolution, ResolveRequest
from control_plane.catalog.support import support_of
from control_plane.context import Context
from control_plane.downloads.selection import select_files
from control_plane.hub.ids import parse_revision
from control_plane.hub.service import parse_model, resolve
from control_plane.providers.registry import all_offers
from control_plane.sizing.memory import fit


def resolve_model(context: Context, request: ResolveRequest) -> Resolution:
    """Look the model up, judge it and fit it to every hardware offer. Talks to the hub and the providers.

    :raises SlipwayError: one of control_plane.hub.errors.
    """
    revision = parse_revision(request.revision)
    facts = resolve(context.settings, parse_model(request.model), revision)
    support = support_of(facts)
    fits = [
        fit(facts, offer, max_model_len=request.max_model_len, concurrency=request.concurrency)
        for offer in all_offers(dict(context.providers))
    ]
    fetched = select_files(facts.files) if facts.has_weights else []
    total = sum(file.size for file in fetched)
    return Resolution.of(facts, revision, total_bytes=total, support=support, fits=fits)
