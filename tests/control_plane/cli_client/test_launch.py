"""``slipway launch``: progress on standard error, the API URL on standard output."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from control_plane.cli.client.api import Api
from control_plane.cli.client.watch import RUNNING, Quiet, wait_for
from control_plane.client_file import ClientFile
from control_plane.instances.lifecycle import Phase
from tests.control_plane.cli_client.conftest import Slipway
from tests.control_plane.cli_client.world import Story

MB = 1_000_000


def come_up(story: Story) -> None:
    story.tell(
        story.download(0, 4 * MB),
        story.download(1 * MB, 4 * MB),
        story.download(1 * MB, 4 * MB, rate=0, reason="the hub answers 500; next attempt in 4 s"),
        story.download(4 * MB, 4 * MB),
        story.move(Phase.PROVISIONING, "starting 1 engine"),
        story.move(Phase.STARTING, "the engine is loading"),
        story.move(Phase.RUNNING, "ready"),
    )


def test_from_a_models_name_to_an_api_url(slipway: Slipway, story: Story, model: str, url: str) -> None:
    come_up(story)

    result = slipway("launch", model, "--name", "mine", "--max-model-len", "128")

    assert result.code == 0, result.err
    assert result.out.startswith(f"{url}/i/mine-")
    assert result.out.endswith("/v1\n")
    assert result.out.count("\n") == 1, "the API URL alone is on standard output"
    assert result.err.splitlines() == [
        "launching tests/tiny as mine",
        "requested: waiting for a worker",
        "downloading: 0 B of 4.0 MB, 1.0 MB/s, 4 s left",
        "downloading: 1.0 MB of 4.0 MB, 1.0 MB/s, 3 s left",
        "downloading: 1.0 MB of 4.0 MB, the hub answers 500; next attempt in 4 s",
        "downloading: 4.0 MB of 4.0 MB, 1.0 MB/s, 0 s left",
        "provisioning: starting 1 engine",
        "starting: the engine is loading",
        "running: ready",
        "mine is running; try: slipway chat mine",
    ]
    launched = json.loads(slipway("show", "mine", "--json").out)
    assert launched["engine"] == {"max_model_len": 128}


def test_json_is_the_instance_and_nothing_else(slipway: Slipway, story: Story, model: str) -> None:
    come_up(story)
    result = slipway("launch", model, "--json")
    assert (result.code, result.err) == (0, "")
    instance = json.loads(result.out)
    assert (instance["phase"], instance["name"], instance["download"]["bytes_done"]) == ("running", "tiny", 4 * MB)


def test_without_waiting(slipway: Slipway, story: Story, model: str) -> None:
    result = slipway("launch", model, "--no-wait")
    assert result.code == 0
    assert result.out.endswith("/v1\n")
    assert json.loads(slipway("show", "tiny", "--json").out)["phase"] == "requested"


def test_a_failure_is_told_with_what_to_do(slipway: Slipway, story: Story, model: str) -> None:
    story.tell(story.download(0, 4 * MB), story.move(Phase.FAILED, "the disk is full", "Free 2 GB."))
    result = slipway("launch", model)
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines()[-2:] == ["error: tiny failed: the disk is full", "  Free 2 GB."]


def test_somebody_else_stops_it(slipway: Slipway, story: Story, model: str) -> None:
    story.tell(story.move(Phase.STOPPING, "asked to stop by Bob"))
    result = slipway("launch", model)
    assert (result.code, result.out) == (1, "")
    assert "tiny is stopping: asked to stop by Bob" in result.err


def test_out_of_time(slipway: Slipway, story: Story, model: str) -> None:
    result = slipway("launch", model, "--timeout", "0")
    assert (result.code, result.out) == (5, "")
    assert "still requested" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["no/such-model"], 3, "no/such-model"),
        (["../etc/passwd"], 2, "model"),
        (["tests/tiny", "--hardware", "moon"], 2, "there is no hardware 'moon'"),
        (["tests/tiny", "--quantization", "magic"], 2, "quantization"),
        (["tests/tiny", "--dtype", "float7"], 2, "dtype"),
    ],
)
def test_what_cannot_be_launched_is_refused_at_once(
    slipway: Slipway, model: str, arguments: list[str], code: int, said: str
) -> None:
    result = slipway("launch", *arguments)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert len(result.err.splitlines()) == 2, "one line and a next step"


def test_a_name_that_is_taken(slipway: Slipway, model: str) -> None:
    assert slipway("launch", model, "--name", "one", "--no-wait").code == 0
    result = slipway("launch", model, "--name", "one", "--no-wait")
    assert result.code == 1
    assert "already an instance named 'one'" in result.err


def test_a_terminal_sees_a_bar(story: Story, model: str, url: str, api_key: str) -> None:
    story.tell(story.download(1 * MB, 4 * MB), story.move(Phase.PROVISIONING), story.move(Phase.STARTING, "loading"))
    story.tell(story.move(Phase.RUNNING))
    ours, theirs = pty.openpty()
    environment = os.environ | {"SLIPWAY_URL": url, "SLIPWAY_API_KEY": api_key, "COLUMNS": "120", "TERM": "xterm"}
    argv = [sys.executable, "-m", "control_plane.cli", "launch", model]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # the other side is closed
            pass
        out = process.communicate(timeout=60)[0]
    os.close(ours)
    assert (process.returncode, out.count("\n")) == (0, 1), shown.decode()
    for part in ("downloading", "1.0 MB of 4.0 MB, 1.0 MB/s, 3 s left", "━", "loading", "\x1b["):
        assert part in shown.decode(), part


def test_a_server_that_is_away_for_a_moment_is_waited_for(
    slipway: Slipway, story: Story, model: str, url: str, api_key: str
) -> None:
    instance = json.loads(slipway("launch", model, "--no-wait", "--json").out)
    come_up(story)
    with Api(ClientFile("http://127.0.0.1:1", api_key)) as api:

        def come_back(_: float) -> None:
            api.url = url

        assert wait_for(api, instance, RUNNING, Quiet(), sleep=come_back)["phase"] == "running"
