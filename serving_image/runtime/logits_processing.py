"""What requests ask to be done to the scores before a token is chosen, greedily or not.

In vLLM's order (``vllm/v1/sample/sampler.py``, ``Sampler.apply_logits_processors`` and the built-in processors):
allowed tokens, bad words, minimum length, bias, then the repetition, frequency and presence penalties. Everything is an
elementwise change of few entries, gathered over all rows into one indexed write each, so rows that ask for nothing cost
nothing and no row's result depends on another's.

Ids outside the vocabulary name no token: banning or biasing one does nothing, allowing only such allows none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serving_image.runtime.sampling_row import SamplingRow


def process_logits(logits: Tensor, rows: Sequence[SamplingRow]) -> None:
    """Apply every row's constraints, bias and penalties to ``logits`` ``[rows, vocab]`` float32, in place."""
    _keep_allowed(logits, rows)
    _ban(logits, rows)
    _add_bias(logits, rows)
    _penalize_repetition(logits, rows)
    _penalize_output(logits, rows)


_Part = tuple[int, Collection[int] | NDArray[np.int64], float | NDArray[np.floating]]
"""A row, tokens, and one value for all of them or one for each."""


class _Entries(NamedTuple):
    """Entries of the scores, one per token and row, and a value for each: all ``[entries]``."""

    rows: Tensor
    tokens: Tensor
    values: Tensor

    @property
    def at(self) -> tuple[Tensor, Tensor]:
        return self.rows, self.tokens


def _keep_allowed(logits: Tensor, rows: Sequence[SamplingRow]) -> None:
    allowed = {
        i: row.params.allowed_token_ids for i, row in enumerate(rows) if row.params.allowed_token_ids is not None
    }
    if not allowed:
        return
    vocab = logits.shape[1]
    entries = _entries([(i, _within(ids, vocab), 0.0) for i, ids in allowed.items()], logits)
    kept = logits[entries.at]
    logits[torch.tensor(list(allowed), device=logits.device)] = float("-inf")
    logits[entries.at] = kept


def _ban(logits: Tensor, rows: Sequence[SamplingRow]) -> None:
    vocab = logits.shape[1]
    banned: list[_Part] = [(i, _within(ids, vocab), 0.0) for i, row in enumerate(rows) if (ids := list(_banned(row)))]
    if banned:
        logits[_entries(banned, logits).at] = float("-inf")


def _banned(row: SamplingRow) -> Iterator[int]:
    """Tokens that would end the answer too early or complete a bad word.

    As in vLLM, a bad word's beginning must be in the output: one that ends the prompt does not count.
    """
    if row.num_output_tokens < row.params.min_tokens:
        yield from row.params.stop_token_ids
    for word in row.params.bad_words:
        start = len(row.tokens) - len(word) + 1
        if word and start >= row.num_prompt_tokens and list(row.tokens[start:]) == word[:-1]:
            yield word[-1]


def _add_bias(logits: Tensor, rows: Sequence[SamplingRow]) -> None:
    vocab = logits.shape[1]
    biased: list[_Part] = [
        (i, [token], bias)
        for i, row in enumerate(rows)
        for token, bias in row.params.logit_bias.items()
        if 0 <= token < vocab
    ]
    if biased:
        entries = _entries(biased, logits)
        logits[entries.at] += entries.values


def _penalize_repetition(logits: Tensor, rows: Sequence[SamplingRow]) -> None:
    vocab = logits.shape[1]
    penalized: list[_Part] = [
        (i, _array(row.tokens, vocab), row.params.repetition_penalty)
        for i, row in enumerate(rows)
        if row.params.repetition_penalty != 1
    ]
    if penalized:
        entries = _entries(penalized, logits)
        scores = logits[entries.at]
        # A token that occurs twice is written twice, with the same value: finding duplicates would cost more.
        logits[entries.at] = torch.where(scores > 0, scores / entries.values, scores * entries.values)


def _penalize_output(logits: Tensor, rows: Sequence[SamplingRow]) -> None:
    frequency: list[_Part] = []
    presence: list[_Part] = []
    for i, row in enumerate(rows):
        params = row.params
        if not (params.frequency_penalty or params.presence_penalty) or not row.num_output_tokens:
            continue
        output = _array(row.tokens[row.num_prompt_tokens :], logits.shape[1])
        tokens, counts = np.unique(output, return_counts=True)
        frequency.append((i, tokens, params.frequency_penalty * counts))
        presence.append((i, tokens, params.presence_penalty))
    for penalized in (frequency, presence):
        if penalized:
            entries = _entries(penalized, logits)
            logits[entries.at] -= entries.values


def _entries(parts: Sequence[_Part], logits: Tensor) -> _Entries:
    """The entries that ``parts`` name, on the device of ``logits``."""
    lengths = [len(tokens) for _, tokens, _ in parts]
    rows = np.repeat([row for row, _, _ in parts], lengths)
    tokens = np.concatenate([np.asarray(tokens, dtype=np.int64) for _, tokens, _ in parts])
    values = np.concatenate(
        [np.broadcast_to(value, length) for (_, _, value), length in zip(parts, lengths, strict=True)]
    )
    return _Entries(
        torch.from_numpy(rows).to(logits.device),
        torch.from_numpy(tokens).to(logits.device),
        torch.from_numpy(values.astype(np.float32)).to(logits.device),
    )


def _within(tokens: Collection[int], vocab: int) -> list[int]:
    return [token for token in tokens if 0 <= token < vocab]


def _array(tokens: Sequence[int], vocab: int) -> NDArray[np.int64]:
    array = np.asarray(tokens, dtype=np.int64)
    return array[(array >= 0) & (array < vocab)]
