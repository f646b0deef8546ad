"""Is this process alive, can it work, and what is it doing."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from control_plane.accounts.dependencies import PrincipalDep
from control_plane.context import ContextDep
from control_plane.errors import Unavailable

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """``ok`` and nothing secret: this route has no authentication."""

    status: str = "ok"


@router.get("/healthz")
@router.get("/api/v1/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz")
@router.get("/api/v1/readyz")
def readyz(context: ContextDep) -> Health:
    """The database answers too, and its schema is there."""
    try:
        with context.database.reading() as session:
            session.execute(text("SELECT 1 FROM alembic_version"))
    except SQLAlchemyError as error:
        raise Unavailable("the database is not ready", "Check SLIPWAY_DATABASE_URL; run 'slipway migrate'.") from error
    return Health()


@router.get("/metrics")
@router.get("/api/v1/metrics")
def metrics(_: PrincipalDep) -> Response:
    """This process's figures, in Prometheus's text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
