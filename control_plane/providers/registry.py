"""Which providers this control plane has. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module

from control_plane.errors import NotFound
from control_plane.providers.base import HardwareOffer, Provider
from control_plane.settings import Settings, get_settings

#: Class by name, imported only where it is used: what one provider needs must not cost the others anything.
_CLASSES = {
    "docker": "control_plane.providers.docker:DockerProvider",
    "fake": "control_plane.providers.fake.provider:FakeProvider",
    "kubernetes": "control_plane.providers.kubernetes:KubernetesProvider",
    "local": "control_plane.providers.local:LocalProvider",
    "slurm": "control_plane.providers.slurm:SlurmProvider",
    "ssh": "control_plane.providers.ssh:SshProvider",
}


def make_providers(settings: Settings) -> dict[str, Provider]:
    """The providers that ``settings.providers`` names, by name.

    :raises NotFound: there is no provider of a name.
    """
    unknown = sorted(set(settings.providers) - set(_CLASSES))
    if unknown:
        raise NotFound(f"unknown provider {unknown[0]!r}", f"SLIPWAY_PROVIDERS may name: {', '.join(_CLASSES)}.")
    return {name: _make(_CLASSES[name], settings) for name in settings.providers}


def _make(path: str, settings: Settings) -> Provider:
    module, _, name = path.partition(":")
    provider: Provider = getattr(import_module(module), name).from_settings(settings)
    return provider


@lru_cache
def get_providers() -> dict[str, Provider]:
    """The providers of this process."""
    return make_providers(get_settings())


def all_offers(providers: Mapping[str, Provider]) -> list[HardwareOffer]:
    """Every provider's hardware, in a stable order."""
    return [offer for name in sorted(providers) for offer in providers[name].offers()]
