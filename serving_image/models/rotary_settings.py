"""Rotary settings out of a ``config.json``, in the spelling of Transformers 4 or 5."""

from __future__ import annotations

from typing import Any, get_args

from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary import RotaryConfig, RotaryScaling

_SCALINGS: dict[str, RotaryScaling] = {name: name for name in get_args(RotaryScaling)} | {"su": "longrope"}

_MIN_DYNAMIC_DIM = 4
"""Its exponent is ``head_dim / (head_dim - 2)``."""


def rope_section(config: HFConfig, layer_type: str | None = None) -> HFConfig:
    """``rope_scaling`` (Transformers 4) or ``rope_parameters`` (5), which may hold one section for each type of layer,
    such as ``sliding_attention``."""
    rope = config.section("rope_scaling") or config.section("rope_parameters")
    return rope.section(layer_type) if layer_type is not None and layer_type in rope else rope


def rotary_dim(config: HFConfig, head_dim: int, default: float = 1.0) -> int:
    """The elements of a head that are rotated, by ``partial_rotary_factor``.

    :raises StartupError: none, or more than there are.
    """
    within = rope_section(config).number("partial_rotary_factor", default=default)
    rotated = int(head_dim * config.number("partial_rotary_factor", default=within))
    if not 0 < rotated <= head_dim:
        raise config.error(f"partial_rotary_factor would rotate {rotated} of a head's {head_dim} elements")
    return rotated


def rotary_config(
    config: HFConfig,
    head_dim: int,
    *,
    rope: HFConfig | None = None,
    theta: float | None = None,
    default_theta: float = 10000.0,
    max_position: int | None = None,
) -> RotaryConfig:
    """The rotary embedding of ``head_dim`` elements.

    :param rope: the section with the settings; None: :func:`rope_section`.
    :param theta: the base, where it is not in the section or ``rope_theta``.
    :param max_position: where it is not ``max_position_embeddings``.
    :raises StartupError: a setting is missing or malformed, or a scaling unknown.
    """
    if rope is None:
        rope = rope_section(config)
    if head_dim % 2:
        raise config.error(f"{head_dim} elements of a head cannot be rotated in pairs")
    scaling = rope.string("rope_type", default=rope.string("type", default="default"))
    if scaling not in _SCALINGS:
        raise config.error(f'rotary scaling "{scaling}" is not supported; supported: {", ".join(sorted(_SCALINGS))}')
    if _SCALINGS[scaling] == "dynamic" and head_dim < _MIN_DYNAMIC_DIM:
        raise config.error(f"{head_dim} elements of a head are too few for dynamic rotary scaling")
    if max_position is None:
        max_position = config.positive_int("max_position_embeddings", default=2048)
    if theta is None:
        theta = rope.number("rope_theta", default=config.number("rope_theta", default=default_theta))
    return RotaryConfig(
        head_dim=head_dim,
        theta=theta,
        max_position=max_position,
        scaling=_SCALINGS[scaling],
        **_scaling_settings(config, rope, _SCALINGS[scaling], max_position, head_dim),
    )


def rotary_by_layer_type(
    config: HFConfig, head_dim: int, *, default_theta: float, local_theta: float | None = None
) -> dict[str, RotaryConfig]:
    """The rotary embeddings by type of layer, where scaling is for the full ones only: a section for each type
    (Transformers 5), or ``rope_scaling`` for the full ones (4).

    :param local_theta: the base of the sliding layers where they have no section; None: that of the full ones.
    :raises StartupError: as :func:`rotary_config`, or there is one section for all.
    """
    sections = config.section("rope_parameters")
    if sections and not ("full_attention" in sections and "sliding_attention" in sections):
        raise config.error("rope_parameters must have a section for full_attention and one for sliding_attention")
    full = sections.section("full_attention") if sections else config.section("rope_scaling")
    sliding = sections.section("sliding_attention")
    return {
        "full_attention": rotary_config(config, head_dim, rope=full, default_theta=default_theta),
        "sliding_attention": rotary_config(
            config, head_dim, rope=sliding, theta=None if sections else local_theta, default_theta=default_theta
        ),
    }


def _scaling_settings(
    config: HFConfig, rope: HFConfig, scaling: RotaryScaling, max_position: int, head_dim: int
) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if scaling in ("llama3", "yarn", "longrope"):
        # The same precedence as Transformers': beside the rotary settings first, then within them.
        within = rope.positive_int("original_max_position_embeddings", default=max_position)
        settings["original_max_position"] = config.positive_int("original_max_position_embeddings", default=within)
    if scaling in ("linear", "dynamic", "llama3", "yarn"):
        settings["factor"] = rope.number("factor")
    if scaling == "llama3":
        settings["low_frequency_factor"] = rope.number("low_freq_factor")
        settings["high_frequency_factor"] = rope.number("high_freq_factor")
    if scaling == "yarn":
        settings["beta_fast"] = rope.number("beta_fast", default=32.0)
        settings["beta_slow"] = rope.number("beta_slow", default=1.0)
        settings["truncate"] = rope.boolean("truncate", default=True)
        for key in ("attention_factor", "mscale", "mscale_all_dim"):
            settings[key] = rope.optional_number(key)
    if scaling == "longrope":
        settings |= _longrope_settings(config, rope, settings["original_max_position"], max_position, head_dim)
    return settings


def _longrope_settings(
    config: HFConfig, rope: HFConfig, original: int, max_position: int, head_dim: int
) -> dict[str, Any]:
    factors = {key: rope.numbers(key) for key in ("short_factor", "long_factor")}
    for key, values in factors.items():
        if len(values) != head_dim // 2:
            raise config.error(f"{key} has {len(values)} numbers for {head_dim // 2} rotated pairs")
    return {
        "factor": rope.number("factor", default=max_position / original),
        "attention_factor": rope.optional_number("attention_factor"),
        "short_factors": factors["short_factor"],
        "long_factors": factors["long_factor"],
        "short_amplitude": rope.optional_number("short_mscale"),
        "long_amplitude": rope.optional_number("long_mscale"),
    }
