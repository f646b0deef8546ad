"""What the engine serves today, and the honest answer where it does not."""

from __future__ import annotations

from typing import NamedTuple

from control_plane.hub.facts import ModelFacts

#: The architectures that ``slipway-serve`` loads: its own registry, checked against this one by a test.
SERVED_ARCHITECTURES = frozenset({"LlamaForCausalLM"})
#: Rotary scalings that it computes.
SERVED_ROPE_TYPES = frozenset({"default", "linear", "dynamic", "llama3", "yarn"})
_SERVED_ACTIVATIONS = frozenset({None, "silu", "swish"})


class Support(NamedTuple):
    """Whether a model can be launched; ``why_not`` is a sentence for a person."""

    supported: bool
    why_not: str | None = None


def support_of(architecture: str | None, quantization: str | None) -> Support:
    """The verdict by what a catalog entry tells."""
    if architecture is None:
        return Support(False, "Its config.json names no architecture.")
    if architecture not in SERVED_ARCHITECTURES:
        return Support(
            False, f"{architecture} is not served yet; served now: {', '.join(sorted(SERVED_ARCHITECTURES))}."
        )
    if quantization is not None:
        return Support(False, f"Weights quantised with {quantization} are not served yet; use the unquantised model.")
    return Support(True)


def support_of_facts(facts: ModelFacts) -> Support:
    """The verdict by the checkpoint itself."""
    by_name = support_of(facts.architecture, facts.quantization.method if facts.quantization else None)
    if not by_name.supported:
        return by_name
    if not facts.has_safetensors:
        return Support(False, "It has no safetensors weights; other formats can run code when loaded and are refused.")
    if facts.rope_type not in SERVED_ROPE_TYPES:
        return Support(False, f"Its rotary scaling ({facts.rope_type}) is not served yet.")
    if facts.activation not in _SERVED_ACTIVATIONS:
        return Support(False, f"Its activation ({facts.activation}) is not served yet.")
    return Support(True)
