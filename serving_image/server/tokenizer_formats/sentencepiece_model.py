"""The file that the SentencePiece trainer writes: a vocabulary and the rules for preparing text.

It is one protocol buffer, ``ModelProto`` of sentencepiece_model.proto in SentencePiece's repository. The fields that
decide how text becomes tokens are few, so they are read here, without the protobuf runtime.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from serving_image.errors import StartupError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
#: A 64-bit number has at most 10 bytes of 7 bits.
LONGEST_VARINT = 10


class PieceType(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class ModelType(IntEnum):
    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


class Piece(NamedTuple):
    text: str
    score: float
    type: PieceType


class SentencePieceModel(NamedTuple):
    """A whole model file.

    :ivar pieces: by id.
    :ivar precompiled_charsmap: the normalization table; empty for none.
    :ivar bos, eos, pad: ids; negative for none.
    """

    pieces: list[Piece]
    type: ModelType
    byte_fallback: bool
    whitespace_as_suffix: bool
    bos: int
    eos: int
    pad: int
    precompiled_charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool

    @property
    def unk(self) -> int:
        """The id of the piece for unknown text."""
        return next(id_ for id_, piece in enumerate(self.pieces) if piece.type == PieceType.UNKNOWN)


class _Malformed(ValueError):
    """The bytes are no such protocol buffer."""


def read_model(path: Path) -> SentencePieceModel:
    """:raises StartupError: the file is not a SentencePiece model."""
    try:
        return _model(path.read_bytes())
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}.", "Check the folder.") from error
    except ValueError as error:  # UnicodeDecodeError is one, and an enum's refusal of an unknown number
        raise StartupError(f"{path} is not a SentencePiece model: {error}.", "Fetch the model again.") from error


def _model(data: bytes) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(_as_bytes(value)))
        elif number == 2:
            trainer = dict(_fields(_as_bytes(value)))
        elif number == 3:
            normalizer = dict(_fields(_as_bytes(value)))
    if sum(piece.type == PieceType.UNKNOWN for piece in pieces) != 1:
        raise _Malformed("it has no piece for unknown text, or several")
    return SentencePieceModel(
        pieces=pieces,
        type=ModelType(_as_int(trainer.get(3, ModelType.UNIGRAM))),
        byte_fallback=bool(trainer.get(35, False)),
        whitespace_as_suffix=bool(trainer.get(24, False)),
        bos=_as_int(trainer.get(41, 1)),
        eos=_as_int(trainer.get(42, 2)),
        pad=_as_int(trainer.get(43, -1)),
        precompiled_charsmap=_as_bytes(normalizer.get(2, b"")),
        add_dummy_prefix=bool(normalizer.get(3, True)),
        remove_extra_whitespaces=bool(normalizer.get(4, True)),
        escape_whitespaces=bool(normalizer.get(5, True)),
    )


def _piece(data: bytes) -> Piece:
    text, score, type_ = "", 0.0, PieceType.NORMAL
    for number, value in _fields(data):
        if number == 1:
            text = _as_bytes(value).decode()
        elif number == 2:
            score = struct.unpack("<f", _as_bytes(value))[0]
        elif number == 3:
            type_ = PieceType(_as_int(value))
    if not text:
        raise _Malformed("a piece has no text")
    return Piece(text, score, type_)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers with their values: numbers as they are, all else as bytes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == BYTES:
            length, position = _varint(data, position)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise _Malformed(f"byte {position} begins no field")
        if position + length > len(data):
            raise _Malformed("it ends within a field")
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and the position after it. It is signed with 64 bits."""
    value = 0
    for index, byte in enumerate(data[position : position + LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            signed = value - (1 << 64) if value >= 1 << 63 else value
            return signed, position + index + 1
    raise _Malformed("it ends within a number")


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise _Malformed("a number stands where bytes should")
    return value


def _as_int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise _Malformed("bytes stand where a number should")
    return value
