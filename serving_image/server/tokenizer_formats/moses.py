"""BioGPT's tokenizer: words as the Moses translation system cuts them, then pairs merged within each.

A word's last character carries ``</w>``.
Moses' rules for English are sacremoses' to know. Merging is done here, because fairseq, from which BioGPT came, drops
rare symbols from its vocabulary after merging; the ``tokenizers`` library merges only what a vocabulary holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import NormalizedString, PreTokenizedString, Tokenizer, decoders, models, pre_tokenizers

from serving_image.server.tokenizer_formats.byte_level import read_merges, read_vocabulary
from serving_image.server.tokenizer_formats.parts import AddedVocabulary, LoadedTokenizer, TokenizerConfig, surround

if TYPE_CHECKING:
    from sacremoses import MosesDetokenizer, MosesTokenizer

END_OF_WORD = "</w>"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
#: Words whose merged form is remembered.
CACHED_WORDS = 1 << 16
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def load_biogpt(folder: Path, config: TokenizerConfig) -> LoadedTokenizer:
    """:raises StartupError: ``vocab.json`` or ``merges.txt`` cannot be read."""
    import sacremoses  # noqa: PLC0415 - 0.4 s that other models need not pay

    special = SPECIAL | config.special_tokens
    added = AddedVocabulary(config, special.values())
    vocabulary = added.merge_into(read_vocabulary(folder))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    words = _Words(sacremoses.MosesTokenizer(lang="en"), read_merges(folder))
    tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(words)
    tokenizer.decoder = decoders.Decoder.custom(_Text(sacremoses.MosesDetokenizer(lang="en")))
    added.add_to(tokenizer)
    surround(tokenizer, [special["sep_token"]], ())
    return LoadedTokenizer(tokenizer, special, decodes_by_context=True)


class _Words:
    """Cuts a text into subwords: what the ``tokenizers`` library calls a pre-tokenizer."""

    def __init__(self, moses: MosesTokenizer, merges: Sequence[tuple[str, str]]) -> None:
        self._moses = moses
        ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._subwords = lru_cache(CACHED_WORDS)(lambda word: _merge([*word[:-1], word[-1] + END_OF_WORD], ranks))

    def pre_tokenize(self, text: PreTokenizedString) -> None:
        text.split(self._cut)

    def _cut(self, _index: int, text: NormalizedString) -> list[NormalizedString]:
        words = self._moses.tokenize(str(text), aggressive_dash_splits=True, return_str=False, escape=True)
        return [NormalizedString(subword) for word in words for subword in self._subwords(word)]


def _merge(parts: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Merge the pair of the lowest rank, wherever it occurs, until no two neighbours are a pair."""
    while len(parts) > 1:
        best = min(pairwise(parts), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        merged: list[str] = []
        rest = iter(range(len(parts)))
        for index in rest:
            if tuple(parts[index : index + 2]) == best:
                merged.append(best[0] + best[1])
                next(rest)
            else:
                merged.append(parts[index])
        parts = merged
    return parts


class _Text:
    """Writes subwords as a text: what the ``tokenizers`` library calls a decoder.

    Whether a quotation mark opens or closes depends on those before it, however far away. Signs with a meaning of
    their own in Moses are entities (``&apos;s``), so what an unfinished word writes from its ``&`` on is not known yet:
    U+FFFD stands for it, as for the unfinished characters of other tokenizers.
    """

    def __init__(self, moses: MosesDetokenizer) -> None:
        self._moses = moses

    def decode_chain(self, subwords: list[str]) -> list[str]:
        *whole, last = "".join(subwords).split(END_OF_WORD)
        certain, entity, _ = last.partition("&")
        text = self._moses.detokenize([word for word in (*whole, certain) if word])
        return [text + REPLACEMENT if entity else text]
