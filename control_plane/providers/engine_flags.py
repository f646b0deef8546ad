"""What every provider asks of a spec before it starts anything, and the flags of ``slipway-serve`` that follow."""

from __future__ import annotations

import re

from control_plane.providers.base import ProviderError, ReplicaSpec

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_OPTION_NAME = re.compile(r"[a-z][a-z0-9-]*")
#: What a provider decides itself.
_RESERVED = frozenset({"host", "port", "api-key-file", "served-model-name", "boot-id", "device", "revision"})


def check_name(name: str) -> None:
    """
    :raises ProviderError: ``name`` could mean something to a path, a shell or an API.
    """
    if not _NAME.fullmatch(name):
        detail = f"{name!r} cannot name a replica"
        raise ProviderError(detail, "Use at most 100 lower case letters, digits and dashes.")


def check_options(spec: ReplicaSpec) -> None:
    """
    :raises ProviderError: an option that an engine must not be given.
    """
    for name in spec.engine_options:
        if name in _RESERVED or not _OPTION_NAME.fullmatch(name):
            raise ProviderError(f"the engine option {name!r} cannot be set", "Launch without it.")


def engine_flags(spec: ReplicaSpec, **decided: str) -> list[str]:
    """``--name=value`` for every option of ``spec`` and for ``decided``, whose underscores become dashes.

    :raises ProviderError: an option that an engine must not be given.
    """
    check_options(spec)
    options = {"served-model-name": spec.served_model_name, "boot-id": spec.boot_token}
    options |= {name.replace("_", "-"): value for name, value in decided.items()}
    return [f"--{name}={value}" for name, value in (options | dict(spec.engine_options)).items()]
