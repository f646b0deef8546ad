"""A SentencePiece model as a tokenizer of the ``tokenizers`` library.

How SentencePiece treats a text, and what does it here::

    " héllo  <sep> x"
      ▼  normalization table, extra spaces    normalizers Precompiled, Replace
      ▼  a space before, spaces written as ▁  normalizers Prepend, Replace          "▁▁héllo▁▁<sep>▁x"
      ▼  user-defined pieces cut out          pre-tokenizer Split                   "▁▁héllo▁▁" "<sep>" "▁x"
      ▼  pairs merged, or the best path       models BPE, Unigram
      ▼  unknown characters as bytes          byte_fallback

Control pieces (``<s>``) never come from text in SentencePiece; as in Transformers they do here, because chat templates
write them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from serving_image.errors import StartupError
from serving_image.server.tokenizer_formats.parts import (
    AddedVocabulary,
    LoadedTokenizer,
    TokenizerConfig,
    ends_of,
    surround,
)
from serving_image.server.tokenizer_formats.sentencepiece_model import (
    ModelType,
    Piece,
    PieceType,
    SentencePieceModel,
    read_model,
)

SPACE = "▁"
#: ChatGLM 2 and 3 put these after the pieces, in this order; ChatGLM 2 has the first five.
CHATGLM_SPECIAL = (
    *("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
)
CHATGLM_PREFIX = ("[gMASK]", "sop")
#: fairseq, from which XGLM came, has its own first tokens in place of SentencePiece's three, and seven of no use after.
FAIRSEQ_FIRST = ("<s>", "<pad>", "</s>", "<unk>")
FAIRSEQ_LAST = tuple(f"<madeupword{number}>" for number in range(7))


def load_sentencepiece(path: Path, config: TokenizerConfig) -> LoadedTokenizer:
    """Llama's tokenizer and its many relatives: ``<s>`` before a text unless the configuration says otherwise.

    :raises StartupError: the file is no SentencePiece model, or of a kind that no language model uses.
    """
    model = _read(path)
    special = _own_special_tokens(model) | config.special_tokens
    tokenizer = _tokenizer(model, config, special)
    surround(tokenizer, *ends_of(config, special, bos=True))
    return LoadedTokenizer(tokenizer, special)


def load_chatglm(path: Path, config: TokenizerConfig) -> LoadedTokenizer:
    """ChatGLM 2 and 3: more special tokens after the pieces, two of them before every text.

    :raises StartupError: as :func:`load_sentencepiece`.
    """
    model = _read(path)
    special = _own_special_tokens(model) | config.special_tokens
    after = [Piece(text, 0.0, PieceType.CONTROL) for text in CHATGLM_SPECIAL]
    tokenizer = _tokenizer(model._replace(pieces=model.pieces + after), config, special)
    surround(tokenizer, CHATGLM_PREFIX, ())
    return LoadedTokenizer(tokenizer, special)


def load_xglm(path: Path, config: TokenizerConfig) -> LoadedTokenizer:
    """XGLM: fairseq's numbers for the special tokens, ``</s>`` before every text.

    :raises StartupError: as :func:`load_sentencepiece`.
    """
    model = _read(path)
    types = [PieceType.UNKNOWN if text == "<unk>" else PieceType.CONTROL for text in FAIRSEQ_FIRST]
    first = [Piece(text, 0.0, type_) for text, type_ in zip(FAIRSEQ_FIRST, types, strict=True)]
    last = [Piece(text, 0.0, PieceType.CONTROL) for text in FAIRSEQ_LAST]
    model = model._replace(pieces=[*first, *model.pieces[3:], *last], bos=0, pad=1, eos=2)
    special = _own_special_tokens(model) | config.special_tokens
    tokenizer = _tokenizer(model, config, special)
    surround(tokenizer, ["</s>"], ())
    return LoadedTokenizer(tokenizer, special)


def _read(path: Path) -> SentencePieceModel:
    model = read_model(path)
    if model.type not in (ModelType.BPE, ModelType.UNIGRAM) or model.whitespace_as_suffix:
        message = f"{path} is a SentencePiece model of a kind that is not served (whole words, characters or suffixes)."
        raise StartupError(message, "Save the model's tokenizer as tokenizer.json.")
    if not model.escape_whitespaces:
        message = f"{path} is a SentencePiece model whose pieces hold plain spaces, which is not served."
        raise StartupError(message, "Save the model's tokenizer as tokenizer.json.")
    return model


def _own_special_tokens(model: SentencePieceModel) -> dict[str, str]:
    ids = {"bos_token": model.bos, "eos_token": model.eos, "pad_token": model.pad, "unk_token": model.unk}
    return {name: model.pieces[id_].text for name, id_ in ids.items() if 0 <= id_ < len(model.pieces)}


def _tokenizer(model: SentencePieceModel, config: TokenizerConfig, special: Mapping[str, str]) -> Tokenizer:
    control = [piece.text for piece in model.pieces if piece.type in (PieceType.CONTROL, PieceType.UNKNOWN)]
    defined = [piece.text for piece in model.pieces if piece.type == PieceType.USER_DEFINED]
    replaced = {model.pieces[id_].text for id_ in config.added_tokens if id_ < len(model.pieces)}
    replaced -= {token.content for token in config.added_tokens.values()}
    added = AddedVocabulary(config, [text for text in (*control, *special.values()) if text not in replaced])
    prefix = model.add_dummy_prefix if config.add_prefix_space is None else config.add_prefix_space
    tokenizer = Tokenizer(_bpe(model, added) if model.type == ModelType.BPE else _unigram(model, added))
    _prepare_text(tokenizer, model, prefix=prefix, everywhere=config.legacy is not False)
    _cut_out(tokenizer, [text for text in defined if text not in replaced])
    steps: list[decoders.Decoder] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    added.add_to(tokenizer)
    return tokenizer


def _bpe(model: SentencePieceModel, added: AddedVocabulary) -> models.BPE:
    vocabulary = added.merge_into({piece.text: id_ for id_, piece in enumerate(model.pieces)})
    return models.BPE(
        vocab=vocabulary,
        merges=_merges(model.pieces, vocabulary),
        unk_token=model.pieces[model.unk].text,
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )


def _merges(pieces: Sequence[Piece], vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """The pairs that SentencePiece merges, the best first: any two pieces that are a third when put together, in the
    order of the third's score."""
    scores = {
        piece.text: piece.score for piece in pieces if piece.type == PieceType.NORMAL and piece.text in vocabulary
    }
    pairs = [
        (-score, text[:cut], text[cut:])
        for text, score in scores.items()
        for cut in range(1, len(text))
        if text[:cut] in scores and text[cut:] in scores
    ]
    pairs.sort(key=lambda pair: pair[0])
    return [(left, right) for _, left, right in pairs]


def _unigram(model: SentencePieceModel, added: AddedVocabulary) -> models.Unigram:
    texts = {piece.text: id_ for id_, piece in enumerate(model.pieces)}
    merged = sorted((id_, text) for text, id_ in added.merge_into(texts).items())
    if [id_ for id_, _ in merged] != list(range(len(merged))):
        message = "The tokenizer's configuration adds tokens whose ids do not follow those of its SentencePiece model."
        raise StartupError(message, "Save the model's tokenizer as tokenizer.json.")
    vocabulary = [(text, model.pieces[id_].score if id_ < len(model.pieces) else 0.0) for id_, text in merged]
    return models.Unigram(vocabulary, unk_id=model.unk, byte_fallback=model.byte_fallback)


def _prepare_text(tokenizer: Tokenizer, model: SentencePieceModel, *, prefix: bool, everywhere: bool) -> None:
    """Normalize, and write spaces as SentencePiece does.

    :param prefix: a space comes before the text.
    :param everywhere: and after each special token in it; else (``legacy: false``) only where the text begins, and
        there not before a space.
    """
    steps: list[normalizers.Normalizer] = []
    if model.precompiled_charsmap:
        steps.append(normalizers.Precompiled(model.precompiled_charsmap))
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex("^ +| +$"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if prefix and not everywhere:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    else:
        if prefix:
            steps.append(normalizers.Prepend(SPACE))
        steps.append(normalizers.Replace(" ", SPACE))
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)


def _cut_out(tokenizer: Tokenizer, defined: Sequence[str]) -> None:
    """Have user-defined pieces stand for themselves wherever they occur, the longest first.

    They are written with ▁, and so not added tokens: those part a text before its spaces become that.
    """
    if not defined:
        return
    longest_first = sorted(defined, key=len, reverse=True)
    split = pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated")
    earlier = tokenizer.pre_tokenizer
    tokenizer.pre_tokenizer = split if earlier is None else pre_tokenizers.Sequence([earlier, split])
    if isinstance(tokenizer.model, models.BPE):
        tokenizer.model.ignore_merges = True  # no merges lead to them
