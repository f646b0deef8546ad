"""downloading ─► provisioning. No hardware is held yet, so nothing is billed while bytes move."""

from __future__ import annotations

from control_plane.downloads.tables import DownloadState
from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers.situation import Outcome, Situation, fail

#: The download tells its own progress; the instance only has to notice its end.
LOOK_EVERY_S = 1.0


def step(situation: Situation) -> Outcome:
    """Watch the shared download."""
    download = situation.download
    if download is None:
        return fail("the download that this instance waited for is gone", "Start the instance again.")
    match download.state:
        case DownloadState.DONE:
            return Outcome("the weights are where the engine reads them", move_to=Phase.PROVISIONING)
        case DownloadState.FAILED:
            return fail(f"the download failed: {download.reason or 'no reason was noted'}", download.next_step)
        case DownloadState.CANCELLED:
            return fail("the download was cancelled", "Start the instance again; what was fetched is kept.")
        case _:
            reason = f"downloading {download.model} at {download.commit_sha[:12]}"
            if download.reason:
                reason = f"{reason}: {download.reason}"
            return Outcome(reason, download.next_step, look_again_in_s=LOOK_EVERY_S)
