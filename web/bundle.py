"""The built style sheets and scripts: their names carry a hash of their content, so browsers may keep them for ever."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

DIST = Path(__file__).parent / "static" / "dist"
#: Where the pages find them.
PREFIX = "/static"
_A_YEAR = "public, max-age=31536000, immutable"


class AssetsNotBuilt(RuntimeError):
    """The build of ``web/assets`` has not been run."""


@lru_cache
def _manifest() -> dict[str, str]:
    """Name in the templates → name on disk."""
    try:
        manifest = json.loads((DIST / "manifest.json").read_text())
    except FileNotFoundError:
        message = (
            "the web assets are not built; run 'make setup', or 'npm --prefix web ci && npm --prefix web run build'"
        )
        raise AssetsNotBuilt(message) from None
    return {str(name): str(built) for name, built in manifest.items()}


def asset_url(name: str) -> str:
    """The URL path of an asset such as ``app.css``.

    :raises AssetsNotBuilt: nothing was built.
    """
    return f"{PREFIX}/{_manifest()[name]}"


class HashedFiles(StaticFiles):
    """Static files whose content never changes under one name."""

    def __init__(self) -> None:
        _manifest()  # say at start, not at the first page, that nothing was built
        super().__init__(directory=DIST)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, to be kept for a year."""
        response = await super().get_response(path, scope)
        if response.status_code in {200, 304}:
            response.headers["Cache-Control"] = _A_YEAR
        return response
