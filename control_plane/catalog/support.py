"""Whether the engine serves a model, told before a byte of its weights is fetched."""

from __future__ import annotations

from control_plane.catalog.catalog import get_catalog
from control_plane.hub.architectures import Support, get_architectures
from control_plane.hub.facts import ModelFacts


def support_of(facts: ModelFacts) -> Support:
    """The verdict by the files of the checkpoint: JSON and listings only."""
    known, config = get_architectures(), facts.config
    verdict = known.support_of(config.architecture)
    if not verdict.supported:
        return verdict
    if config.quantization is not None:
        original = get_catalog().unquantised(facts.id)
        instead = original.id if original else "the model that it was made of"
        return Support(
            False, f"Its weights are quantised with {config.quantization.method}, which is not served; use {instead}."
        )
    if not facts.has_weights:
        return Support(False, "It has no weights in safetensors or PyTorch format, the only ones that are loaded.")
    if config.architecture in known.native and config.rope_type not in known.rotary_scalings:
        return Support(False, f"Its rotary scaling ({config.rope_type}) is not served.")
    return verdict
