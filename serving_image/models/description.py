"""What a module of ``architectures`` says about a checkpoint."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from serving_image.models.config import DecoderConfig
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import TensorNames


class ModelDescription(NamedTuple):
    """The decoder's configuration, and where its parameters are."""

    decoder: DecoderConfig
    names: TensorNames


class Architecture(Protocol):
    """A module of ``serving_image.models.architectures``; the first line of its docstring names the family.

    :ivar ARCHITECTURES: the names in ``config.json`` that it serves.
    """

    ARCHITECTURES: tuple[str, ...]

    def describe(self, config: HFConfig, /) -> ModelDescription:
        """Translate ``config.json``.

        :raises StartupError: a field is missing, malformed or asks for something that the family does not have.
        """
