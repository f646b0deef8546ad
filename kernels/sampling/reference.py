"""What the sampler computes, one request after another, in plain torch and float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.sampling.result import Logprobs
from kernels.sampling.rows import RowSampling


def process_logits(logits: Tensor, request: RowSampling, tokens: Sequence[int]) -> Tensor:
    """The scores ``[vocab]`` as :func:`kernels.sampling.process_logits` leaves them.

    :param tokens: all that the request has.
    """
    scores, vocab = logits.clone(), len(logits)
    output = list(tokens[request.prompt_length :])
    banned = _completing_a_bad_word(request, output)
    if len(output) < request.min_tokens:
        banned |= set(request.stop_token_ids)
    if request.allowed_token_ids is not None:
        banned |= set(range(vocab)) - set(request.allowed_token_ids)
    for token in banned & set(range(vocab)):
        scores[token] = -math.inf
    for token, bias in request.logit_bias.items():
        if 0 <= token < vocab:
            scores[token] += bias
    for token in set(tokens) & set(range(vocab)):
        factor = request.repetition_penalty
        scores[token] = scores[token] / factor if scores[token] > 0 else scores[token] * factor
        if token in output:
            scores[token] -= request.frequency_penalty * output.count(token) + request.presence_penalty
    return scores


def _completing_a_bad_word(request: RowSampling, output: list[int]) -> set[int]:
    return {
        word[-1]
        for word in map(list, request.bad_words)
        if word and len(word) <= len(output) + 1 and output[len(output) - len(word) + 1 :] == word[:-1]
    }


def kept(logits: Tensor, request: RowSampling) -> Tensor:
    """Which tokens of processed scores ``[vocab]`` may be drawn: bool."""
    scores = logits.double() / request.temperature
    left = scores > -math.inf
    if request.min_p > 0:
        left &= scores >= scores.max() + math.log(request.min_p)
    if request.top_k > 0:
        ordered = scores[left].sort(descending=True).values
        left &= scores >= ordered[min(request.top_k, len(ordered)) - 1]
    if request.top_p < 1:
        probabilities = scores.masked_fill(~left, -math.inf).softmax(dim=0)
        # A token stays if the ones that are more probable do not yet make up top_p.
        before = torch.where(probabilities[None, :] > probabilities[:, None], probabilities, 0.0).sum(dim=1)
        left &= (before < request.top_p) | (scores == scores.max())
    return left


def sample(logits: Tensor, request: RowSampling, num_output: int) -> int:
    """The token that :func:`kernels.sampling.sample` chooses among processed scores ``[vocab]``."""
    if not logits.amax().isfinite():
        return -1
    if request.greedy:
        return int((logits == logits.max()).nonzero()[0])
    scores = logits.double() / request.temperature + gumbel(request.seed, num_output, len(logits))
    return int(scores.masked_fill(~kept(logits, request), -math.inf).argmax())


def gumbel(seed: int, index: int, vocab: int) -> Tensor:
    """``[vocab]`` float64: the noise of every token when a request has generated ``index``."""
    blocks = np.arange(-(-vocab // 4), dtype=np.uint64)
    zero = np.zeros_like(blocks)
    words = philox4x32(np.stack([blocks, zero + np.uint64(index), zero, zero]), seed % 2**32, seed % 2**64 >> 32)
    uniforms = (torch.from_numpy(words.T.ravel()[:vocab].astype(np.float64)) + 0.5) / 2**32
    return -torch.log(-torch.log1p(-uniforms))


def philox4x32(counters: NDArray[np.uint64], key: int, other_key: int) -> NDArray[np.uint64]:
    """Philox4x32-10 of counters ``[4, n]``: four words each, ``[4, n]``. Salmon et al. 2011, section 3.3."""
    c0, c1, c2, c3 = counters
    low, shift = np.uint64(2**32 - 1), np.uint64(32)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1 = (b >> shift) ^ c1 ^ np.uint64(key), b & low
        c2, c3 = (a >> shift) ^ c3 ^ np.uint64(other_key), a & low
        key, other_key = (key + 0x9E3779B9) % 2**32, (other_key + 0xBB67AE85) % 2**32
    return np.stack([c0, c1, c2, c3])


def logprobs(logits: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
    """See :func:`kernels.sampling.logprobs`."""
    exact = logits.double().log_softmax(dim=1)
    own = logits.gather(1, chosen.long()[:, None])
    best = logits.sort(dim=1, descending=True, stable=True).indices[:, :num_top]
    return Logprobs(
        exact.gather(1, chosen.long()[:, None])[:, 0].float(),
        (logits >= own).sum(dim=1, dtype=torch.int32),
        best.int(),
        exact.gather(1, best).float(),
    )
