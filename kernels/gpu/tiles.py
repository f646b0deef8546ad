"""Tile shapes: ``tiles.json`` beside each operation, by kernel, compute capability and case.

::

    {"decode": {"80": {"d128": {"tile": 64, "num_warps": 4, "num_stages": 3}}, "90": {…}}, "prefill": {…}}

A device takes the entries of the highest capability that is not above its own. The files are written by the offline
tuner (``python -m benchmarks.gpu.tune``); nothing is tried out while requests wait.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import resources

from kernels.gpu.device import Device

TileShape = Mapping[str, int]

Entry = tuple[str, str, str]
"""Operation, kernel and case."""

_trying: dict[Entry, TileShape] = {}
_noted: list[dict[Entry, TileShape]] = []


def tile_shape(operation: str, kernel: str, case: str, device: Device) -> TileShape:
    """The constants that a kernel is compiled with.

    :param operation: the folder under ``kernels`` that holds the table.
    :raises KeyError: the table has no entry for this kernel and case, or none for so old a device.
    """
    shape = _trying.get((operation, kernel, case))
    if shape is None:
        shape = _chosen(operation, kernel, case, device.capability)
    for noted in _noted:
        noted[operation, kernel, case] = shape
    return shape


@contextmanager
def trying(operation: str, kernel: str, case: str, shape: TileShape) -> Iterator[None]:
    """Use ``shape`` instead of the table's entry: for the tuner and for tests."""
    _trying[operation, kernel, case] = shape
    try:
        yield
    finally:
        del _trying[operation, kernel, case]


@contextmanager
def noting() -> Iterator[dict[Entry, TileShape]]:
    """Yield the entries that are asked for, as they are: for the tuner and for tests."""
    noted: dict[Entry, TileShape] = {}
    _noted.append(noted)
    try:
        yield noted
    finally:
        _noted.remove(noted)


@cache
def _table(operation: str) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    table: dict[str, dict[str, dict[str, dict[str, int]]]] = json.loads(
        resources.files(f"kernels.{operation}").joinpath("tiles.json").read_text()
    )
    return table


@cache
def _chosen(operation: str, kernel: str, case: str, capability: int) -> TileShape:
    by_capability = _table(operation)[kernel]
    served = [int(known) for known in by_capability if int(known) <= capability and case in by_capability[known]]
    if not served:
        raise KeyError(f"kernels/{operation}/tiles.json has no {kernel} for {case} on compute capability {capability}")
    return by_capability[str(max(served))][case]
