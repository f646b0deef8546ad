"""The files in which models bring their tokenizers, each turned into one of the ``tokenizers`` library.

A checkpoint may also bring Python code for its tokenizer (``auto_map``): it is never run. What the known classes do
is written here instead, so that every kind of file ends as the same object and all of the server treats them alike::

    tokenizer.json ─────────────────────────────┐
    vocab.json + merges.txt ── byte_level ──────┤
                            └─ moses (BioGPT) ──┤
    tokenizer.model ─┬ sentencepiece ───────────┼──► tokenizers.Tokenizer + special tokens
                     └ tiktoken (GLM-4) ────────┤
    qwen.tiktoken ──── tiktoken ────────────────┘
"""

from serving_image.server.tokenizer_formats.loading import load_tokenizer
from serving_image.server.tokenizer_formats.parts import LoadedTokenizer

__all__ = ["LoadedTokenizer", "load_tokenizer"]
