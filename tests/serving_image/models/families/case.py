"""A tiny checkpoint of a family, and the independent truth about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

VOCAB_SIZE = 199

Reference = Callable[[list[int]], Tensor]
"""From the tokens of one sequence to the scores after each, ``[tokens, vocab]`` float32."""


class Case(NamedTuple):
    """One configuration of a family.

    ``write`` saves a checkpoint with random weights into a folder and returns what it computes by other means. Contexts
    are up to ``max_tokens`` long: 174 unless the configuration has a reason.
    """

    name: str
    write: Callable[[Path], Reference]
    max_tokens: int = 174


def transformers_case(
    name: str, config_class: type[PretrainedConfig], *, attention: str = "eager", **settings: Any
) -> Case:
    """A configuration that Transformers itself runs; without remote code, in float32.

    :param attention: which of its forms; the plainest, unless that one is wrong.
    :param settings: beside a vocabulary of :data:`VOCAB_SIZE` and weights wide enough that attention matters.
    """

    def write(folder: Path) -> Reference:
        torch.manual_seed(len(name))
        config = config_class(**({"vocab_size": VOCAB_SIZE, "initializer_range": 0.2} | settings))
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32).eval()
        perturb(model)
        model.save_pretrained(folder)
        return transformers_reference(model)

    return Case(name, write)


def respelled(
    case: Case,
    name: str,
    *,
    tensors: Callable[[str], str] = str,
    fields: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Case:
    """The same checkpoint as other software writes it.

    :param tensors: from a tensor's name to the other one.
    :param fields: from ``config.json`` to the other one.
    """

    def write(folder: Path) -> Reference:
        reference = case.write(folder)
        file, config = folder / "model.safetensors", folder / "config.json"
        stored = load_file(file)
        save_file({tensors(theirs): tensor for theirs, tensor in stored.items()}, file, {"format": "pt"})
        config.write_text(json.dumps(fields(json.loads(config.read_text()))))
        return reference

    return case._replace(name=name, write=write)


def rope_of_transformers_4(fields: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` with rotary settings as Transformers 4 wrote them."""
    rope = dict(fields["rope_parameters"])
    others = {key: value for key, value in fields.items() if key != "rope_parameters"}
    theta, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    return others | {"rope_theta": theta, "rope_scaling": None if kind == "default" else rope | {"type": kind}}


def without(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """For :func:`respelled`: ``config.json`` lacks these fields, so that their defaults count."""
    return lambda fields: {name: value for name, value in fields.items() if name not in names}


def perturb(model: torch.nn.Module) -> None:
    """Move vectors, and stacks of them, off their initial zeros and ones, which would hide whether they are read."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(torch.randn_like(parameter) * 0.2)


def transformers_reference(model: PreTrainedModel) -> Reference:
    """The scores of a model of Transformers."""

    @torch.inference_mode()
    def reference(tokens: list[int]) -> Tensor:
        logits: Tensor = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()
        return logits

    return reference
