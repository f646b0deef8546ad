"""What hardware there is."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from control_plane.accounts.dependencies import PrincipalDep
from control_plane.context import ContextDep
from control_plane.pagination import Page
from control_plane.providers.registry import all_offers

router = APIRouter(tags=["hardware"])


class HardwareView(BaseModel):
    """Something an instance can run on. Memory in bytes, price in US dollars per hour."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    provider: str
    name: str
    accelerator: str
    accelerator_count: int
    cpu_count: int
    memory_bytes: int
    price_per_hour: float
    available: bool
    why_unavailable: str | None


@router.get("/hardware")
def list_hardware(context: ContextDep, _: PrincipalDep) -> Page[HardwareView]:
    """Every provider's offers, with the memory that is free now."""
    return Page(items=[HardwareView.model_validate(offer) for offer in all_offers(context.providers)])
