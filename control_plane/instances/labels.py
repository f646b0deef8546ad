"""What a replica's resource says about itself at its provider, so that it can be adopted when no row knows it.

Providers keep labels by the narrowest rules that any of them has, Kubernetes' (label values: at most 63 characters,
letters, digits, ``-``, ``_`` and ``.``, a letter or digit at both ends): what does not fit is made to, or left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.instances.tables import Instance, Replica

MAX_LENGTH = 63
#: Model ids have one slash and never two dashes in a row.
_SLASH = "--"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def safe(text: str) -> str:
    """``text`` as a label's value; two texts may become the same one."""
    return _UNSAFE.sub("-", text)[:MAX_LENGTH].strip("-_.")


def labels_of(instance: Instance, replica: Replica) -> dict[str, str]:
    """The labels of a replica. A model id that is too long is left out: a part of it would name another model."""
    labels = {
        "instance": str(instance.id),
        "replica": str(replica.ordinal),
        "generation": str(replica.generation),
        "model": instance.model.replace("/", _SLASH),
        "name": safe(instance.name),
        "slug": instance.slug,
        "hardware": safe(instance.hardware or ""),
        "devices": str(instance.accelerator_count),
        "memory": str(instance.memory_bytes),
        "commit": instance.commit_sha or "",
    }
    return {key: value for key, value in labels.items() if value and len(value) <= MAX_LENGTH}


@dataclass(frozen=True)
class Described:
    """What labels say; None where they do not. ``hardware`` is :func:`safe` of the offer's id."""

    model: str | None
    name: str | None
    slug: str | None
    hardware: str | None
    commit_sha: str | None
    generation: int
    devices: int
    memory_bytes: int


def described(labels: Mapping[str, str]) -> Described:
    """The inverse of :func:`labels_of`, as far as there is one."""
    model = labels.get("model")
    return Described(
        model=model.replace(_SLASH, "/") if model else None,
        name=labels.get("name"),
        slug=labels.get("slug"),
        hardware=labels.get("hardware"),
        commit_sha=labels.get("commit"),
        generation=_number(labels, "generation"),
        devices=_number(labels, "devices"),
        memory_bytes=_number(labels, "memory"),
    )


def _number(labels: Mapping[str, str], key: str) -> int:
    text = labels.get(key, "")
    return int(text) if text.isascii() and text.isdigit() else 0
