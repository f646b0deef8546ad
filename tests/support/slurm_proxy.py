"""A proxy in front of slurmrestd that does what networks and busy controllers do: loses answers, shows old lists."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.http import serving


@contextmanager
def faulty_proxy(upstream: str, *, lose_submissions: bool = False, old_lists: int = 0) -> Iterator[str]:
    """Forward everything to ``upstream``; yields the proxy's URL.

    :param lose_submissions: jobs are submitted, but their ids do not come back.
    :param old_lists: so many lists of jobs are from before there were any.
    """
    left = old_lists

    async def forward(request: Request) -> Response:
        nonlocal left
        path = request.url.path
        headers = {name: value for name, value in request.headers.items() if name.startswith(("x-slurm", "content-ty"))}
        async with httpx.AsyncClient(base_url=upstream, trust_env=False) as client:
            answer = await client.request(request.method, path, headers=headers, content=await request.body())
        if lose_submissions and path.endswith("/job/submit"):
            return Response("bad gateway", status_code=502)
        if left and path.endswith("/jobs"):
            left -= 1
            return Response('{"errors": [], "jobs": []}', media_type="application/json")
        return Response(answer.content, answer.status_code, media_type="application/json")

    methods = ["GET", "POST", "DELETE"]
    with serving(Starlette(routes=[Route("/{path:path}", forward, methods=methods)])) as url:
        yield url
