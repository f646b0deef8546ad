"""Whether the engine serves a model, told before a byte of its weights is fetched."""

from __future__ import annotations

from control_plane.hub.architectures import Support, get_architectures
from control_plane.hub.facts import ModelFacts


def support_of(facts: ModelFacts) -> Support:
    """The verdict by the files of the checkpoint: JSON and listings only."""
    known, config = get_architectures(), facts.config
    verdict = known.support_of(config.architecture)
    if not verdict.supported:
        return verdict
    if config.quantization is not None:
        method = config.quantization.method
        return Support(False, f"Its weights are quantised with {method}, which is not served; use those that are not.")
    if not facts.has_weights:
        return Support(False, "It has no weights in safetensors or PyTorch format, the only ones that are loaded.")
    if config.architecture in known.native and config.rope_type not in known.rotary_scalings:
        return Support(False, f"Its rotary scaling ({config.rope_type}) is not served.")
    return verdict
