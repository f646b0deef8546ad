"""requested ─► downloading, or at once provisioning when the weights are here already."""

from __future__ import annotations

from sqlmodel import Session

from control_plane.downloads.service import ensure_download
from control_plane.errors import SlipwayError, Unavailable
from control_plane.hub import service as hub
from control_plane.hub.ids import ModelId
from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers.situation import Outcome, Situation, fail, try_again
from control_plane.instances.tables import Instance

#: A hub that does not answer is asked for about half a minute; launching again is one click.
MAX_ATTEMPTS = 5


def step(situation: Situation) -> Outcome:
    """Find out which files are needed, and join or begin their download."""
    instance, settings = situation.instance, situation.context.settings
    try:
        if situation.weights() is not None:
            return Outcome("the weights are there", move_to=Phase.PROVISIONING)
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
        )
        row.commit_sha, row.download_id = facts.sha, download.id

    reason = f"downloading {instance.model} at {facts.sha[:12]}"
    return Outcome(reason, move_to=Phase.DOWNLOADING, write=attach, data={"commit_sha": facts.sha})
