"""The flags of ``slipway-serve``: those that a provider decides, and those that a launch may set."""

from __future__ import annotations

import re

from control_plane.providers.base import ProviderError, ReplicaSpec

#: What the provider decides itself.
RESERVED = frozenset({"host", "port", "api-key-file", "served-model-name", "boot-id", "device"})
_OPTION_NAME = re.compile(r"[a-z][a-z0-9-]*")


def engine_flags(spec: ReplicaSpec, **decided: str) -> list[str]:
    """``--name=value`` for every option of ``spec`` and for ``decided``, whose underscores become dashes.

    :raises ProviderError: an option that an engine must not be given.
    """
    options = {"served-model-name": spec.served_model_name, "boot-id": spec.boot_token}
    options |= {name.replace("_", "-"): value for name, value in decided.items()}
    for name, value in spec.engine_options.items():
        if name in RESERVED or not _OPTION_NAME.fullmatch(name):
            raise ProviderError(f"the engine option {name!r} cannot be set", "Launch without it.")
        options[name] = value
    return [f"--{name}={value}" for name, value in options.items()]
