"""Where download agents ask for their job and report. A person's key opens nothing here; a token opens one job."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from control_plane.context import ContextDep
from control_plane.downloads import agents
from control_plane.downloads.agent_schemas import LARGEST_REPORT_BYTES, AgentJob, AgentReply, AgentReport
from control_plane.errors import Invalid

router = APIRouter(prefix="/agent/downloads", tags=["agents"], include_in_schema=False)


class TooLarge(Invalid):
    """A body that no agent of ours would send."""

    status, code = 413, "too_large"
    next_step = "Use the agent of the same version as the control plane."


@router.get("/{download_id}")
def get_job(download_id: UUID, request: Request, context: ContextDep) -> AgentJob:
    """What the agent is to fetch."""
    return agents.job(context, download_id, _token(request))


@router.post("/{download_id}")
async def report(download_id: UUID, request: Request, context: ContextDep) -> AgentReply:
    """Take a report; the answer says whether to stop."""
    body = await _body(request)
    try:
        told = AgentReport.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise Invalid(f"{where}: {first['msg']}", "Use the agent of the same version as the control plane.") from None
    cancel = await run_in_threadpool(agents.report, context, download_id, _token(request), told)
    return AgentReply(cancel=cancel)


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _body(request: Request) -> bytes:
    """The body, as far as it is small enough; no more of it is ever held."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_REPORT_BYTES:
            raise TooLarge(f"a report has {LARGEST_REPORT_BYTES} bytes at most")
    return bytes(body)
