"""The Triton forms compiled for GPUs that are not here, without the interpreter and so in processes of their own.

Their machine code is held to what ``benchmarks.gpu.compiled.demands`` says and to the committed table. The table has
every kernel for every device and names the sources it was made from, so that a change to any of them wants it made
anew; here a part is compiled again. With another version of Triton than the table names, only the demands count: its
code may differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.gpu.compiled import table
from benchmarks.gpu.compiled.cases import all_cases
from benchmarks.gpu.compiled.demands import complaints
from benchmarks.gpu.compiled.rows import Compiled, Key, Row, sample
from kernels.gpu.inspection import Code, disassembled

ROOT = Path(__file__).resolve().parents[2]

# All is compiled in the first test's fixture.
pytestmark = pytest.mark.timeout(1200)


class Done(NamedTuple):
    status: int
    out: str
    err: str


def run_compiling(cache: Path, module: str, *arguments: str) -> Done:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    environment.pop("TRITON_INTERPRET", None)
    argv = [sys.executable, "-m", module, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, cwd=ROOT, env=environment, text=True, start_new_session=True, **pipes) as process:
        try:
            out, err = process.communicate(timeout=1100)
        finally:
            # Its own processes would wait for work for ever.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return Done(process.returncode, out, err)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    folder = tmp_path_factory.mktemp("compiled")
    done = run_compiling(folder / "cache", "benchmarks.gpu.compiled", "--sample", "--json", str(folder / "rows.json"))
    assert (folder / "rows.json").exists(), done.err[-4000:]
    return Compiled.read(folder / "rows.json")


@pytest.fixture(scope="module")
def committed() -> str:
    return table.PATH.read_text()


CASES = list(all_cases())
SAMPLE = {work[:2] for work in sample()}


@pytest.mark.parametrize(("operation", "case"), CASES, ids=[" ".join(each) for each in CASES])
def test_machine_code(compiled: Compiled, committed: str, operation: str, case: str) -> None:
    failures = [failure for failure in compiled.failures if failure[:2] == (operation, case)]
    assert not failures
    rows = [row for row in compiled.rows if row.key[:2] == (operation, case)]
    assert bool(rows) == ((operation, case) in SAMPLE)
    assert [(row.key, complaint) for row in rows for complaint in complaints(row)] == []
    if table.head() in committed:
        lines = table.committed(committed)
        assert [table.line(row) for row in rows] == [lines.get(row.key) for row in rows], "run benchmarks.gpu.compiled"
        mine = {key: line for key, line in lines.items() if key[:2] == (operation, case)}
        assert {key.capability for key in mine} == set(all_cases()[operation, case].capabilities)
        assert [(key, table.wrong(line)) for key, line in mine.items() if table.wrong(line)] == []


def test_the_committed_table_is_of_these_sources_and_has_no_other_rows(committed: str) -> None:
    assert f"from sources {table.digest()}" in committed, "run python -m benchmarks.gpu.compiled"
    assert {key[:2] for key in table.committed(committed)} == set(all_cases())


def test_every_triton_form_is_compiled(compiled: Compiled) -> None:
    forms = {path.parent.name for path in (ROOT / "kernels").glob("*/triton*")} - {"native"}
    assert forms == {row.key.operation for row in compiled.rows}


def test_what_does_not_fit_is_noticed(tmp_path: Path) -> None:
    done = run_compiling(tmp_path, "tests.kernels.oversized")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    for capability in (80, 90):
        key = Key("product", "", "product", capability)
        parts = {name: found[f"{name} {capability}"] for name in ("fits", "oversized")}
        shared = {name: part.pop("shared") for name, part in parts.items()}
        rows = {name: Row(key, 4, 3, shared[name], Code(**parts[name])) for name in parts}
        assert list(complaints(rows["fits"])) == []
        assert any("local memory" in complaint for complaint in complaints(rows["oversized"]))
        assert rows["oversized"].code.stack > 0
        # 64 rows of 64 bfloat16 and 64 rows of 128, 16 bytes for each of 128 threads: 4 + 8 loads.
        assert rows["fits"].code.loads == {"16": 12}
        # wgmma: 64 rows, 128 columns and 16 of the 64 inner values at once; mma: a warp's 16, 8 and 16 of the same.
        expected = {80: {"mma": 64 * 128 * 64 // 4 // (16 * 8 * 16)}, 90: {"wgmma": 64 // 16}}
        assert rows["fits"].code.matrix == expected[capability]


def test_a_loop_is_what_control_comes_back_to() -> None:
    text = """
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 BRA `(.L_x_4) ;
.L_x_3:
        /*0020*/                   LDG.E.128 R4, desc[UR4][R8.64] ;
.L_x_1:
        /*0030*/                   LDL R9, [R1] ;
        /*0040*/               @P1 BRA `(.L_x_1) ;
        /*0050*/                   BRA.U UP0, `(.L_x_2) ;
        /*0060*/                   STL [R1], R9 ;
        /*0070*/                   EXIT ;
.L_x_2:
        /*0080*/                   IMAD R1, R2, R3, R4 ;
        /*0090*/                   BRA `(.L_x_3) ;
.L_x_4:
        /*00a0*/                   STG.E desc[UR4][R2.64], R4 ;
        /*00b0*/                   BRA `(.L_x_5) ;
.L_x_5:
        /*00c0*/                   EXIT ;
"""
    found = {each.opcode: each.in_loop for each in disassembled(text) if each.name not in {"BRA", "EXIT"}}
    assert found == {
        "LDC": False,
        "LDG.E.128": True,
        "LDL": True,
        "STL": False,
        "IMAD": True,
        "STG.E": False,
    }


def test_a_slow_path_behind_the_end_is_no_loop() -> None:
    text = """
        /*0000*/               @P0 BRA `(.L_x_9) ;
.L_x_1:
        /*0010*/                   LDL R9, [R1] ;
        /*0020*/                   EXIT ;
.L_x_9:
        /*0030*/                   STL [R1], R9 ;
        /*0040*/                   BRA `(.L_x_1) ;
"""
    assert not any(each.in_loop for each in disassembled(text))
