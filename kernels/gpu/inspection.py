"""What a kernel's machine code needs and does: read off with the tools that come with Triton.

An instruction is *in a loop* if control can come back to it. *Hot* are the instructions in loops, or all where no loop
loads from global memory: one access to local memory for each tile of keys costs more than a hundred before the first.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from triton import knobs

_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")
_LABEL = re.compile(r"^(\.L_x_\d+):")
_TARGET = re.compile(r"`\((\.L_x_\d+)\)")
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+)")
_BITS = re.compile(r"\.[US]?(8|16|64|128)\b")
_MATRIX = {"HMMA": "mma", "IMMA": "mma", "HGMMA": "wgmma", "QGMMA": "wgmma", "UTCHMMA": "tcgen05", "UTCQMMA": "tcgen05"}
_LOADS = frozenset({"LDG", "LDGSTS", "UTMALDG", "UBLKCP"})
_LOCAL = frozenset({"LDL", "STL"})
_ENDS = frozenset({"EXIT", "RET", "BRA", "BRX", "JMP"})


class Instruction(NamedTuple):
    """One instruction. ``opcode`` has its suffixes; ``in_loop`` as said above."""

    opcode: str
    in_loop: bool

    @property
    def name(self) -> str:
        return self.opcode.split(".")[0]


@dataclass(frozen=True, slots=True)
class Code:
    """What one kernel needs and does.

    :ivar registers: per thread.
    :ivar stack: bytes of local memory per thread.
    :ivar hot_spills: hot instructions that read or write local memory.
    :ivar cold_spills: the others.
    :ivar loads: how many hot instructions load from global memory, into registers or on to shared memory, by the bytes
        that a thread loads; ``bulk``: Hopper's copies of whole tiles.
    :ivar matrix: how many matrix instructions it has, by kind: ``mma``, ``wgmma`` (Hopper), ``tcgen05`` (Blackwell).
    """

    registers: int
    stack: int
    hot_spills: int
    cold_spills: int
    loads: dict[str, int]
    matrix: dict[str, int]


@cache
def inspect(cubin: bytes) -> Code:
    """Read a cubin with one kernel.

    :raises subprocess.CalledProcessError: not a cubin.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _run(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name)
        instructions = disassembled(_run(knobs.nvidia.nvdisasm.path, "--print-code", "--no-dataflow", file.name))
    kernel = _RESOURCES.search(usage)
    if kernel is None:
        raise ValueError("the cubin holds no kernel")
    loops = any(each.in_loop and each.name in _LOADS for each in instructions)
    hot = [each for each in instructions if each.in_loop] if loops else instructions
    spills, hot_spills = (sum(each.name in _LOCAL for each in some) for some in (instructions, hot))
    return Code(
        registers=int(kernel[1]),
        stack=int(kernel[2]),
        hot_spills=hot_spills,
        cold_spills=spills - hot_spills,
        loads=dict(Counter(_width(each) for each in hot if each.name in _LOADS)),
        matrix=dict(Counter(_MATRIX[each.name] for each in instructions if each.name in _MATRIX)),
    )


def disassembled(text: str) -> list[Instruction]:
    """The instructions in nvdisasm's output, in order."""
    blocks = list(_blocks(text))
    at_label = {label: number for number, block in enumerate(blocks) for label in block.labels}
    successors = [
        [at_label[label] for label in block.targets] + [number + 1] * (block.falls_through and number + 1 < len(blocks))
        for number, block in enumerate(blocks)
    ]
    return [
        Instruction(opcode, in_loop)
        for number, block in enumerate(blocks)
        for in_loop in [number in _reachable(successors, successors[number])]
        for opcode in block.opcodes
    ]


class _Block(NamedTuple):
    """Instructions that run one after another: control enters at the first and leaves after the last."""

    labels: list[str]
    opcodes: list[str]
    targets: list[str]
    falls_through: bool


def _blocks(text: str) -> Iterator[_Block]:
    labels: list[str] = []
    opcodes: list[str] = []
    for line in text.splitlines():
        if label := _LABEL.match(line):
            if opcodes:
                yield _Block(labels, opcodes, [], True)
                labels, opcodes = [], []
            labels.append(label[1])
        elif found := _INSTRUCTION.search(line):
            predicate, opcode, operands = found.groups()
            opcodes.append(opcode)
            name, target = opcode.split(".")[0], _TARGET.search(operands)
            # BSSY names the place where threads meet again: control does not go there yet.
            if name in _ENDS or (target and name != "BSSY"):
                # A condition is a predicate before the opcode or an operand before the target (BRA.U UP0, …).
                always = predicate is None and name in _ENDS and not operands[: target.start() if target else 0].strip()
                yield _Block(labels, opcodes, [target[1]] if target and name != "RET" else [], not always)
                labels, opcodes = [], []
    if opcodes:
        yield _Block(labels, opcodes, [], False)


def _reachable(successors: list[list[int]], start: Iterable[int]) -> set[int]:
    seen: set[int] = set()
    waiting = list(start)
    while waiting:
        block = waiting.pop()
        if block not in seen:
            seen.add(block)
            waiting.extend(successors[block])
    return seen


def _width(load: Instruction) -> str:
    if load.name in {"UTMALDG", "UBLKCP"}:
        return "bulk"
    bits = _BITS.search(load.opcode)
    return str(int(bits[1]) // 8) if bits else "4"


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, check=True, text=True, timeout=60).stdout
