"""Where a family's checkpoints keep the decoder's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from serving_image.models.parameters import ParameterSpec
from serving_image.models.transforms import Shape, Transform

_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_EXPERT = re.compile(r"(?<=experts\.)\d+(?=\.)")
_REDUNDANT = re.compile(r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\.attn\.(masked_)?bias$")
"""Rotary tables and causal masks, which old checkpoints store."""
_IDENTITY = Transform(lambda tensor: tensor)


class Source(NamedTuple):
    """A checkpoint tensor, of ``stored_shape``, that becomes a parameter's next ``rows`` rows."""

    name: str
    stored_shape: Shape
    rows: int
    transform: Transform


class Computed(NamedTuple):
    """A parameter that no checkpoint stores, such as a table of sines."""

    make: Callable[[], Tensor]


class From(NamedTuple):
    """A module of a checkpoint, or a tensor, and what to do with what is in it."""

    name: str
    transform: Transform


Origin = str | From | tuple[str | From, ...] | Computed
"""Where a module's or a parameter's tensors are: one module, or one for each of the projections that are stacked."""


@dataclass(frozen=True)
class TensorNames:
    """A family's names for modules, by the decoder's names for them (:mod:`serving_image.models.parameters`).

    A module is a parameter's name without ``.weight`` or ``.bias``, which checkpoints share; where one does not, the
    whole parameter is listed with its tensor's whole name, and goes before its module. ``experts.{}`` stands for every
    expert, in either name.

    :ivar layer: what goes before the names in ``layers``, such as ``model.layers.{}.``.
    :ivar top: outside the layers; whole names.
    :ivar layer_overrides: by layer number, where layers differ.
    :ivar redundant: tensors that carry nothing, besides rotary tables, masks and a tied output layer; a pattern.
    :ivar spellings: other names under which checkpoints store the same tensors: a pattern at the start of theirs, and
        what stands here instead of it.
    """

    layer: str
    layers: Mapping[str, Origin]
    top: Mapping[str, Origin]
    layer_overrides: Mapping[int, Mapping[str, Origin]] = field(default_factory=dict)
    redundant: str | None = None
    spellings: Mapping[str, str] = field(default_factory=dict)

    def canonical(self, stored: str) -> str:
        """What a checkpoint's tensor is called here."""
        for pattern, replacement in self.spellings.items():
            stored = re.sub(rf"^(?:{pattern})", replacement, stored)
        return stored

    def origin(self, name: str, spec: ParameterSpec) -> tuple[Source, ...] | Computed:
        """Where a parameter comes from, in the order of its rows.

        :raises KeyError: the family has no name for it.
        """
        found = _LAYER.fullmatch(name)
        if found is None:
            return _sources(self.top, name, spec, lambda theirs: theirs)
        index, prefix = int(found[1]), self.layer.format(found[1])
        names = {**self.layers, **self.layer_overrides.get(index, {})}
        return _sources(names, found[2], spec, lambda theirs: prefix + theirs)

    def is_redundant(self, name: str, *, tied: bool) -> bool:
        """Whether a checkpoint's tensor that is no parameter's origin may be left out."""
        if tied and name == self._lm_head():
            return True
        return bool(_REDUNDANT.search(name) or (self.redundant and re.search(self.redundant, name)))

    def _lm_head(self) -> str:
        origin = self.top.get("lm_head", "lm_head")
        return (origin.name if isinstance(origin, From) else str(origin)) + ".weight"


def _sources(
    names: Mapping[str, Origin], name: str, spec: ParameterSpec, whole: Callable[[str], str]
) -> tuple[Source, ...] | Computed:
    expert = _EXPERT.search(name)
    kind = name.rpartition(".")[2]
    candidates = (name, _EXPERT.sub("{}", name))
    origin = next((names[candidate] for candidate in candidates if candidate in names), None)
    suffix = ""
    if origin is None:
        modules = [candidate.rpartition(".")[0] for candidate in candidates]
        origin, suffix = names[modules[0] if modules[0] in names else modules[1]], f".{kind}"
    if isinstance(origin, Computed):
        return origin
    parts = (origin,) if isinstance(origin, (str, From)) else origin
    sizes = spec.parts if len(parts) > 1 else spec.shape[:1]
    found = []
    for part, size in zip(parts, sizes, strict=True):
        theirs, transform = part if isinstance(part, From) else (part, _IDENTITY)
        stored_shape = transform.stored_shape((size, *spec.shape[1:]))
        stored_name = whole(theirs.format(expert[0]) if expert else theirs) + suffix
        found.append(Source(stored_name, stored_shape, size, transform))
    return tuple(found)
