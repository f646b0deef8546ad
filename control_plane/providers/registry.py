"""Which providers this control plane has. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from control_plane.errors import NotFound
from control_plane.providers.base import HardwareOffer, Provider
from control_plane.providers.local import LocalProvider
from control_plane.settings import Settings, get_settings

_FACTORIES = {"local": LocalProvider.from_settings}


def make_providers(settings: Settings) -> dict[str, Provider]:
    """The providers that ``settings.providers`` names, by name."""
    unknown = sorted(set(settings.providers) - set(_FACTORIES))
    if unknown:
        raise NotFound(f"unknown provider {unknown[0]!r}", f"SLIPWAY_PROVIDERS may name: {', '.join(_FACTORIES)}.")
    return {name: _FACTORIES[name](settings) for name in settings.providers}


@lru_cache
def get_providers() -> dict[str, Provider]:
    """The providers of this process."""
    return make_providers(get_settings())


def all_offers(providers: Mapping[str, Provider]) -> list[HardwareOffer]:
    """Every provider's hardware, in a stable order."""
    return [offer for name in sorted(providers) for offer in providers[name].offers()]
