"""The reference of the sampler against published vectors, Transformers and the softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from kernels.sampling import reference
from tests.kernels.sampling_batch import ask


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_its_authors_words(counter: list[int], key: list[int], words: list[int]) -> None:
    """The known answers published with Random123."""
    counters = np.array(counter, dtype=np.uint64)[:, None]
    assert reference.philox4x32(counters, *key)[:, 0].tolist() == words


def test_the_best_with_noise_follows_the_softmax() -> None:
    """Chi-squared over 20,000 seeds; 50 is exceeded by chance once in 10⁸ with the 7 degrees of freedom there are."""
    logits = torch.tensor([0.3, 2.0, -1.0, 1.4, 0.0, 1.9, -3.0, 0.9])
    drawn = [(logits + reference.gumbel(seed, 3, 8)).argmax() for seed in range(20_000)]
    counts = torch.stack(drawn).bincount(minlength=8)
    expected = logits.softmax(dim=0) * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 50


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.sampled_from([1, 5, 128, 300]),
    st.integers(0, 2**31),
    st.one_of(st.just(0.0), st.floats(1e-6, 1.0)),
    st.one_of(st.just(0), st.integers(1, 400)),
    st.one_of(st.just(1.0), st.floats(1e-3, 0.9999)),
)
def test_kept_tokens_are_those_that_transformers_keeps(
    vocab: int, seed: int, min_p: float, top_k: int, top_p: float
) -> None:
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ids, scores = torch.zeros(1, 1, dtype=torch.long), logits[None]
    if min_p:
        scores = MinPLogitsWarper(min_p)(ids, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(ids, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(ids, scores)
    assert torch.equal(
        reference.kept(logits, ask(min_p=min_p, top_k=top_k, top_p=top_p).sampling), scores[0].isfinite()
    )
