"""Specs and statuses as JSON, for providers whose replicas are run by another process."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from control_plane.providers.base import ReplicaSpec, ReplicaStatus

_SPEC = TypeAdapter(ReplicaSpec)
_STATUS = TypeAdapter(ReplicaStatus)


def spec_to_json(spec: ReplicaSpec) -> dict[str, Any]:
    """``spec`` as a JSON object, its key included."""
    return dict(_SPEC.dump_python(spec, mode="json"))


def spec_from_json(value: dict[str, Any]) -> ReplicaSpec:
    """The inverse of :func:`spec_to_json`.

    :raises ValueError: it is not one.
    """
    return _SPEC.validate_python(value)


def status_to_json(status: ReplicaStatus) -> dict[str, Any]:
    """``status`` as a JSON object."""
    return dict(_STATUS.dump_python(status, mode="json"))


def status_from_json(value: dict[str, Any]) -> ReplicaStatus:
    """The inverse of :func:`status_to_json`.

    :raises ValueError: it is not one.
    """
    return _STATUS.validate_python(value)
