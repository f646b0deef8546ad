"""What requests ask of the sampler, in fixed rows on the device.

::

    parameters   row 0 │ flags │ 1/T │ top_k │ … │ seed │ rules │ counts │ allowed │      80 bytes each
                 row 1 │   …                          │       │        │
                                                      ▼       ▼        ▼
                                                   own small tensors, of rows that ask for such a thing: their addresses

A row that asks for nothing special costs its 80 bytes. What only some ask for (a bias, penalties, allowed tokens) has a
tensor of its own, so that nothing is as large as all rows times the vocabulary and nothing ever has to grow: a captured
CUDA graph stays valid while requests come and go.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["RowSampling", "SamplingRows", "SamplingState"]

_MIN_TEMPERATURE = 1e-5
"""Below it dividing by the temperature could overflow, so as in vLLM it counts as 0."""

GREEDY, TRUNCATES, PENALIZES, ALLOWS, ADJUSTS = 1, 2, 4, 8, 16
"""Bits of ``flags``: the best token is taken; top-k, top-p or min-p leave tokens out; the row has ``counts``,
``allowed``, ``rules``."""

IN_PROMPT = 1 << 30
"""The bit of a token's count that says that it is in the prompt; the bits below count it in the output."""

ROW = np.dtype(
    [
        ("flags", "<i4"),
        ("inverse_temperature", "<f4"),
        ("top_k", "<i4"),
        ("top_p", "<f4"),
        ("log_min_p", "<f4"),
        ("repetition_penalty", "<f4"),
        ("frequency_penalty", "<f4"),
        ("presence_penalty", "<f4"),
        ("min_tokens", "<i4"),
        ("prompt_length", "<i4"),
        ("seed", "<u8"),
        ("rules", "<i8"),
        ("counts", "<i8"),
        ("allowed", "<i8"),
        ("_padding", "<i8"),
    ]
)
"""A row of ``parameters``. ``top_k`` is below the vocabulary; 0 means off, as does a ``log_min_p`` of -inf. Addresses
are 0 where there is nothing."""


class RowSampling(NamedTuple):
    """What one request asks for; names and meanings are vLLM's ``SamplingParams``.

    ``prompt_length`` of the ``num_tokens`` tokens that the request has when it is admitted are its prompt. Only the low
    64 bits of ``seed`` count. ``temperature`` 0 means greedy. Ids outside the vocabulary name no token: banning or
    biasing one does nothing, allowing only such allows none.
    """

    seed: int
    prompt_length: int
    num_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    min_tokens: int = 0
    stop_token_ids: Collection[int] = ()
    logit_bias: Mapping[int, float] = {}
    allowed_token_ids: Collection[int] | None = None
    bad_words: Sequence[Sequence[int]] = ()

    @property
    def greedy(self) -> bool:
        """Whether the best token is taken."""
        return self.temperature < _MIN_TEMPERATURE

    @property
    def truncates(self) -> bool:
        """Whether unlikely tokens are left out before one is drawn."""
        return not self.greedy and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)

    @property
    def penalizes(self) -> bool:
        """Whether tokens that were there before are penalised."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0

    @property
    def adjusts(self) -> bool:
        """Whether single tokens are biased or banned."""
        return bool(self.logit_bias or self.bad_words or (self.min_tokens > 0 and self.stop_token_ids))

    @property
    def processes(self) -> bool:
        """Whether the scores must be changed before a token is chosen."""
        return self.penalizes or self.adjusts or self.allowed_token_ids is not None


class SamplingState(NamedTuple):
    """The rows as the kernels see them; every tensor keeps its address for ever.

    ``parameters``: ``[max_rows, 20]`` int32, rows of :data:`ROW`. ``tokens``: ``[max_rows, max_model_len]`` int32,
    every request's tokens from the first on; :func:`kernels.sampling.sample` adds the one it chooses.
    """

    parameters: Tensor
    tokens: Tensor


class _Extras(NamedTuple):
    """A row's own tensors, kept alive while kernels may read them."""

    rules: Tensor | None
    counts: Tensor | None
    allowed: Tensor | None


class SamplingRows:
    """The host's side of :class:`SamplingState`: who has which row.

    :param tokens: ``[max_rows, max_model_len]`` int32 on the device, kept by the caller.

    Nothing here waits for the device. All calls, and the kernels', must be on one stream.
    """

    def __init__(self, tokens: Tensor, vocab_size: int) -> None:
        max_rows = tokens.shape[0]
        parameters = torch.zeros(max_rows, ROW.itemsize // 4, dtype=torch.int32, device=tokens.device)
        self.state = SamplingState(parameters, tokens)
        self._vocab_size = vocab_size
        self._requests: dict[int, RowSampling] = {}
        self._extras: dict[int, _Extras] = {}

    def admit(self, requests: Mapping[int, RowSampling]) -> None:
        """Put requests in rows, in place of what was there. The rows' ``tokens`` must already be theirs."""
        if not requests:
            return
        rows = np.zeros(len(requests), dtype=ROW)
        for packed, (row, asked) in zip(rows, requests.items(), strict=True):
            # Among all tokens top-k leaves nothing out, and need not be looked for.
            request = asked._replace(top_k=0) if asked.top_k >= self._vocab_size else asked
            extras = self._make_extras(request)
            _pack(packed, request, extras)
            self._requests[row], self._extras[row] = request, extras
        index = self._upload(np.array(list(requests), dtype=np.int64))
        words = self._upload(rows.view(np.int32).reshape(len(requests), -1))
        self.state.parameters.index_copy_(0, index, words)
        self._count_tokens({row: request for row, request in requests.items() if request.penalizes})

    def release(self, rows: Iterable[int]) -> None:
        """These requests have ended. Kernels that were launched before may still read the rows."""
        for row in rows:
            del self._requests[row], self._extras[row]

    def processes(self, rows: Iterable[int]) -> bool:
        """Whether :func:`kernels.sampling.process_logits` has anything to do for one of these rows."""
        return any(self._requests[row].processes for row in rows)

    def truncates(self, rows: Iterable[int]) -> bool:
        """What :func:`kernels.sampling.sample` wants to know of its rows."""
        return any(self._requests[row].truncates for row in rows)

    def _make_extras(self, request: RowSampling) -> _Extras:
        device = self.state.tokens.device
        counts = torch.zeros(self._vocab_size, dtype=torch.int32, device=device) if request.penalizes else None
        allowed = None
        if request.allowed_token_ids is not None:
            allowed = self._upload(_bitmap(request.allowed_token_ids, self._vocab_size))
        return _Extras(self._upload(_rules(request, self._vocab_size)) if request.adjusts else None, counts, allowed)

    def _upload(self, array: NDArray[Any]) -> Tensor:
        """A copy on the device, without waiting for it: torch keeps the pinned memory until the copy is done."""
        tensor = torch.from_numpy(array)
        device = self.state.tokens.device
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    def _count_tokens(self, requests: Mapping[int, RowSampling]) -> None:
        from kernels.sampling import triton as form

        if requests:
            rows = self._upload(np.array(list(requests), dtype=np.int32))
            lengths = self._upload(np.array([request.num_tokens for request in requests.values()], dtype=np.int32))
            longest = max(request.num_tokens for request in requests.values())
            form.count_tokens(rows, lengths, longest, self.state, self._vocab_size)


def _pack(packed: Any, request: RowSampling, extras: _Extras) -> None:
    """Fill one row of :data:`ROW`."""
    packed["flags"] = (
        GREEDY * request.greedy
        | TRUNCATES * request.truncates
        | PENALIZES * request.penalizes
        | ALLOWS * (request.allowed_token_ids is not None)
        | ADJUSTS * request.adjusts
    )
    packed["inverse_temperature"] = 0.0 if request.greedy else 1 / request.temperature
    packed["top_k"] = request.top_k
    packed["top_p"] = request.top_p
    packed["log_min_p"] = math.log(request.min_p) if request.min_p > 0 else -math.inf
    packed["repetition_penalty"] = request.repetition_penalty
    packed["frequency_penalty"] = request.frequency_penalty
    packed["presence_penalty"] = request.presence_penalty
    packed["min_tokens"] = min(request.min_tokens, 2**31 - 1)
    packed["prompt_length"] = request.prompt_length
    packed["seed"] = request.seed % 2**64
    for name, tensor in extras._asdict().items():
        packed[name] = 0 if tensor is None else tensor.data_ptr()


def _bitmap(token_ids: Collection[int], vocab_size: int) -> NDArray[np.int32]:
    """``[ceil(vocab / 32)]``: bit ``t % 32`` of word ``t // 32`` says that token ``t`` is allowed."""
    allowed = np.zeros(-(-vocab_size // 32) * 32, dtype=bool)
    allowed[[token for token in token_ids if 0 <= token < vocab_size]] = True
    return np.packbits(allowed, bitorder="little").view(np.int32)


def _rules(request: RowSampling, vocab_size: int) -> NDArray[np.int32]:
    """What happens to single tokens, each list in the order of its tokens::

    │ biased │ stops │ words │      how many of each
    │ token … │ float32 … │         what to add to the biased ones' scores
    │ token … │                     stop tokens, banned before min_tokens are there
    │ token … │ start … end │       each bad word's last token; where its other tokens are, from the next line on
    │ token … │
    """
    biased = sorted((token, bias) for token, bias in request.logit_bias.items() if 0 <= token < vocab_size)
    stops = sorted(token for token in set(request.stop_token_ids) if 0 <= token < vocab_size)
    words = sorted(
        (word[-1], word[:-1]) for word in map(list, request.bad_words) if word and 0 <= word[-1] < vocab_size
    )
    # A token that no tail can hold matches nothing, which is what one outside the vocabulary must do.
    beginnings = [token if 0 <= token < vocab_size else -1 for _, beginning in words for token in beginning]
    return np.concatenate(
        [
            np.array([len(biased), len(stops), len(words)], dtype=np.int32),
            np.array([token for token, _ in biased], dtype=np.int32),
            np.array([bias for _, bias in biased], dtype=np.float32).view(np.int32),
            np.array(stops, dtype=np.int32),
            np.array([token for token, _ in words], dtype=np.int32),
            np.cumsum([0, *(len(beginning) for _, beginning in words)], dtype=np.int32),
            np.array(beginnings, dtype=np.int32),
        ]
    )
