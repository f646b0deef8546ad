"""What runs when, and what becomes of failures; the tasks themselves need a GPU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import file_name, main, run
from benchmarks.gpu.correctness import account
from benchmarks.gpu.results import Figure, Results, updating
from benchmarks.gpu.tasks import PARTS, TASKS

ROOT = Path(__file__).resolve().parents[3]
ABOUT = {"device": "NVIDIA H200", "date": "2030-01-02", "versions": "torch 2"}


def test_without_a_gpu_it_says_so_in_one_line_and_exits_with_2(tmp_path: Path) -> None:
    argv, hidden = [ROOT / "benchmarks/gpu/run.sh", "kernels"], {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(argv, check=False, cwd=tmp_path, env=hidden, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "needs a CUDA GPU" in done.stderr


def test_an_unknown_part_is_refused_with_the_names_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["kernels", "everything"])
    assert ended.value.code == 2
    assert (
        "no part is called everything; there are correctness, kernels, model, tune and all" in capsys.readouterr().err
    )


def test_every_part_ends_within_8_minutes() -> None:
    assert {task for tasks in PARTS.values() for task in tasks} == set(TASKS)
    for tasks in PARTS.values():
        assert sum(TASKS[task].limit for task in tasks) < 8 * 60


def test_a_failing_task_stops_no_other_and_the_page_says_what_failed(tmp_path: Path) -> None:
    path = tmp_path / "results" / file_name(ABOUT)
    ran: list[str] = []

    def run_task(task: str, results: Path) -> str:
        ran.append(task)
        with updating(results) as found:
            found.figures.append(Figure("sampler", task, 1.0))
        return "exit status 1" if task == "engine" else ""

    assert run(["kernels", "model"], path, ABOUT, run_task)
    assert ran == ["kernels", "engine", "start", "peers"]
    found = Results.read(path)
    assert [figure.case for figure in found.figures] == ran
    assert found.parts == {"kernels": "", "engine": "exit status 1", "start": "", "peers": ""}
    assert "**engine failed**: exit status 1" in path.with_suffix(".md").read_text()


def test_what_a_task_found_before_it_failed_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    Results(ABOUT).write(path)

    def task() -> None:
        with updating(path) as results:
            results.figures.append(Figure("sampler", "batch 1", 1e-3))
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        task()
    assert [figure.case for figure in Results.read(path).figures] == ["batch 1"]


def test_files_are_named_by_date_and_device() -> None:
    assert file_name(ABOUT) == "2030-01-02-nvidia-h200.json"


def test_an_account_of_tests_names_what_failed() -> None:
    report = """<testsuites><testsuite>
      <testcase classname="tests.kernels.test_a" name="test_one"/>
      <testcase classname="tests.kernels.test_a" name="test_two"><failure>no</failure></testcase>
      <testcase classname="tests.kernels.test_b" name="test_three"><skipped/></testcase>
      <testcase classname="" name="tests.kernels.test_c"><error>cannot be collected</error></testcase>
    </testsuite></testsuites>"""
    assert account(report) == {
        "passed": 1,
        "failed": 2,
        "skipped": 1,
        "failures": ["tests.kernels.test_a::test_two", "::tests.kernels.test_c"],
    }
