"""requested ─► downloading, or at once provisioning when the weights are where the replicas can read them."""

from __future__ import annotations

from sqlmodel import Session

from control_plane.downloads.service import Place, ensure_download
from control_plane.errors import SlipwayError, Unavailable
from control_plane.hub import service as hub
from control_plane.hub.ids import ModelId
from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers.situation import Outcome, Situation, fail, try_again
from control_plane.instances.tables import Instance
from control_plane.providers.base import WeightsFetcher

#: A hub that does not answer is asked for about half a minute; launching again is one click.
MAX_ATTEMPTS = 5


def step(situation: Situation) -> Outcome:
    """Find out which files are needed, and join or begin their download: here, or by an agent where they are read."""
    instance, settings = situation.instance, situation.context.settings
    try:
        if situation.weights() is not None:
            return Outcome("the weights are there", move_to=Phase.PROVISIONING)
        place = _place(situation)
        revision = instance.commit_sha or instance.revision
        facts = hub.resolve(settings, ModelId.parse(instance.model), revision)
    except Unavailable as error:
        if instance.attempts + 1 >= MAX_ATTEMPTS:
            return fail(error.detail, error.next_step)
        return try_again(situation, error.detail, error.next_step)
    except SlipwayError as error:
        return fail(error.detail, error.next_step)

    def attach(session: Session, row: Instance) -> None:
        download = ensure_download(
            session,
            situation.context,
            endpoint=settings.hub_endpoint,
            model=row.model,
            commit_sha=facts.sha,
            files=facts.files,
            place=place,
            has_chat_template=facts.has_chat_template,
        )
        row.commit_sha, row.download_id = facts.sha, download.id

    reason = f"downloading {instance.model} at {facts.sha[:12]}"
    return Outcome(reason, move_to=Phase.DOWNLOADING, write=attach, data={"commit_sha": facts.sha})


def _place(situation: Situation) -> Place | None:
    """The provider's own storage; None where its replicas read ours.

    :raises SlipwayError: the provider, or the hardware, is not there any more.
    """
    instance = situation.instance
    provider = situation.provider(instance.provider)
    if not isinstance(provider, WeightsFetcher):
        return None
    hardware = instance.hardware or ""
    return Place(provider.location(hardware), instance.provider, hardware)
