"""Every entry of the catalog is one that the engine takes, with the memory that the catalog plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from control_plane.catalog.catalog import get_catalog
from control_plane.catalog.entry import CatalogEntry
from serving_image.models.cache_layout import LatentShape
from serving_image.models.registry import ModelFolder

ENTRIES = get_catalog().entries
#: Lines that every config.json of its kind has and that no size follows from.
COMMON = {"rms_norm_eps": 1e-6, "layer_norm_eps": 1e-5, "layer_norm_epsilon": 1e-5, "layernorm_epsilon": 1e-5}
ROPE: dict[str, dict[str, Any]] = {
    "llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "longrope": {"short_factor": [1.0], "long_factor": [2.0]},
}


def config_json(entry: CatalogEntry) -> dict[str, Any]:
    """The excerpt, made whole."""
    stated: dict[str, Any] = {**COMMON, **entry.config_excerpt, "architectures": [entry.architecture]}
    scaling = dict(stated.get("rope_scaling") or {})
    for name, value in ROPE.get(entry.config.rope_type, {}).items():
        pairs = entry.config.attention[0].head_dim // 2
        scaling[name] = value * pairs if isinstance(value, list) else value
    if isinstance(stated.get("sliding_window_pattern"), str):  # letters stand beside the list that they make
        windows = [layer.window for layer in entry.config.attention]
        stated["layer_types"] = ["sliding_attention" if window else "full_attention" for window in windows]
    return stated | ({"rope_scaling": scaling} if scaling else {})


@pytest.mark.parametrize("family", sorted({entry.family for entry in ENTRIES}))
def test_the_engine_takes_it_and_keeps_what_was_planned(tmp_path: Path, family: str) -> None:
    for entry in ENTRIES:
        if entry.family != family:
            continue
        (tmp_path / "config.json").write_text(json.dumps(config_json(entry)))
        decoder = ModelFolder.open(tmp_path).decoder
        assert decoder.max_position == entry.config.context, entry.id
        assert decoder.vocab_size == entry.config.vocabulary, entry.id
        planned = [
            LatentShape(layer.latent.rank, layer.latent.rope_dim)
            if layer.latent
            else (layer.kv_heads, layer.head_dim, layer.window)
            for layer in entry.config.attention
        ]
        assert list(decoder.cache_layout.shapes) == planned, entry.id
