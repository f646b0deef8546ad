"""Tiny vocabularies in every format, trained here; the libraries that own the formats are the truth about them."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import sentencepiece
from hypothesis import strategies as st

TEXT = """The quick brown fox jumps over the lazy dog. It isn't there; they're gone, we'll see.
Pack my box with five dozen liquor jugs, 1234567890 times!  Twice   as many spaces.
敏捷的棕色狐狸跳过了懒狗。今天天气很好，我们去公园散步吧。你好，世界！
Größe, naïve café, Ελληνικά, русский текст, עברית. def f(x):\n    return x ** 2 + [1, 2][0]
the then there these other another mother brother weather together
"""
#: Letters of the training text and not, spaces in runs, signs of several bytes, pieces' own letters.
UNITS = [*"aehtT 's.,!12\n\t好你天狗éñ€🎉▁_|д\r", "  ", "the", "<sep>", "Größe"]
#: Signs that join or follow others. The ``tokenizers`` library looks a whole cluster up in a SentencePiece model's
#: normalization table, where SentencePiece looks up what it finds, so the two differ where these follow a space.
COMBINING = ["\u0301", "\u200d", "👩\u200d🚀", "\u00a0"]
TEXTS = st.lists(st.sampled_from(UNITS + COMBINING), max_size=30).map("".join)
TEXTS_WITHOUT_COMBINING = st.lists(st.sampled_from(UNITS), max_size=30).map("".join)
#: Written out, so that a failure of the usual shows without luck.
EXAMPLES = (
    "the quick brown fox",
    " leading and trailing  ",
    "你好，世界！ 今天 the weather",
    "🎉👩‍🚀 emoji\n\nlines\t\ttabs",
    "they're We'LL isn't 12345 x=1;",
    "",
    "   ",
)


@cache
def sentencepiece_bytes(**options: Any) -> bytes:
    """A trained ``tokenizer.model``: Llama's settings but for ``options``."""
    lists = {name: list(value) for name, value in options.items() if isinstance(value, tuple)}  # a list is not hashable
    settings: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 700 if options.get("byte_fallback", True) else 400,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": True,
        "split_digits": True,
        "character_coverage": 0.99,
        "hard_vocab_limit": False,
        "minloglevel": 2,
    }
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines() * 3), model_writer=stream, **(settings | options | lists)
    )
    return stream.getvalue()


@cache
def ranks() -> dict[bytes, int]:
    """Tiktoken's ranks: every byte, then what merging the most frequent pairs of :data:`TEXT` makes."""
    tokens = {bytes([byte]): byte for byte in range(256)}
    words = Counter(
        tuple(bytes([byte]) for byte in word.encode()) for word in re.findall(r" ?\w+| ?[^\w\s]+|\s+", TEXT)
    )
    while len(tokens) < 450:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        (left, right), _ = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        tokens.setdefault(left + right, len(tokens))
        words = Counter({_merged(word, left, right): count for word, count in words.items()})
    return tokens


def _merged(word: tuple[bytes, ...], left: bytes, right: bytes) -> tuple[bytes, ...]:
    merged: list[bytes] = []
    for part in word:
        if merged and (merged[-1], part) == (left, right):
            merged[-1] = left + right
        else:
            merged.append(part)
    return tuple(merged)


def write_ranks(path: Path) -> None:
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks().items()))


def write_byte_level(folder: Path, special: tuple[str, ...]) -> None:
    """``vocab.json`` and ``merges.txt`` as the ``tokenizers`` library saves them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    tokenizer.model.save(str(folder))


def write_config(folder: Path, **fields: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
