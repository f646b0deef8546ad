"""From ``slipway up`` to tokens through an API URL: real processes, a real hub, real engines."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from openai import OpenAI

from tests.hub import models
from tests.hub.server import HubServer
from tests.support.processes import alive, eventually, family
from tests.support.slipway import RunningSlipway, free_port

pytestmark = pytest.mark.alone


class Streamed(NamedTuple):
    """What the official client made of a stream."""

    text: str
    tokens: int


def streamed(base_url: str, api_key: str, model: str, **extra: Any) -> Streamed:
    """Stream an answer of at most 24 tokens from an API URL, with the official client."""
    client = OpenAI(base_url=base_url, api_key=api_key, max_retries=0)
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=extra,
    )
    text, tokens = "", 0
    for chunk in stream:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    return Streamed(text, tokens)


@contextmanager
def launched(slipway: RunningSlipway, name: str, *argv: str) -> Iterator[subprocess.CompletedProcess[str]]:
    """``slipway launch`` with this name; terminated afterwards."""
    result = slipway.cli("launch", "--name", name, *argv)
    try:
        yield result
    finally:
        slipway.cli("rm", "--yes", name)


def test_the_printed_curl_line_works_and_shows_no_key(slipway_up: RunningSlipway) -> None:
    curl = slipway_up.announcement["curl"]
    assert slipway_up.api_key not in curl
    answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=60, check=True).stdout
    assert len(json.loads(answer)["choices"][0]["message"]["content"].split()) > 3


def test_the_starter_streams_to_the_openai_client(slipway_up: RunningSlipway) -> None:
    starter = slipway_up.instance("starter")
    assert starter["phase"] == "running"
    assert starter["api_url"] == slipway_up.announcement["api_url"]
    alone = streamed(starter["api_url"], slipway_up.api_key, starter["model"])
    by_model = streamed(f"{slipway_up.url}/v1", slipway_up.api_key, starter["model"])
    assert len(alone.text.split()) > 3
    assert by_model == alone


def test_launch_shows_progress_and_ends_with_an_api_url(
    slipway_up: RunningSlipway, hub: HubServer, tmp_path: Path
) -> None:
    # 12 million real parameters: small enough for a test, large enough for its progress to be seen.
    folder = models.tiny_llama(tmp_path / "slow", hidden_size=512, intermediate_size=2048, num_hidden_layers=3)
    hub.add_repo("e2e/slow", folder)
    hub.faults.rate(12_000_000, "/cdn/*")
    with launched(slipway_up, "slow", "e2e/slow") as result:
        assert result.returncode == 0, result.stderr
        assert "downloading" in result.stderr
        assert "/s" in result.stderr
        url = result.stdout.strip().splitlines()[-1]
        assert url == slipway_up.instance("slow")["api_url"]
        # Random weights say nothing in particular, and may say it in special tokens; so count.
        assert streamed(url, slipway_up.api_key, "e2e/slow", ignore_eos=True).tokens == 24
        timeline = slipway_up.api("GET", f"/instances/{slipway_up.instance('slow')['id']}/events")["items"]
        phases = [event["data"]["to"] for event in timeline if "to" in event["data"]]
        assert phases[-4:] == ["downloading", "provisioning", "starting", "running"]


def test_a_second_instance_of_a_model_fetches_nothing_again(
    slipway_up: RunningSlipway, hub: HubServer, tmp_path: Path
) -> None:
    hub.add_repo("e2e/shared", models.tiny_llama(tmp_path / "shared"))
    with launched(slipway_up, "one", "e2e/shared") as first:
        assert first.returncode == 0, first.stderr
        fetched = hub.bytes_sent("model.safetensors")
        with launched(slipway_up, "two", "e2e/shared") as second:
            assert second.returncode == 0, second.stderr
            assert hub.bytes_sent("model.safetensors") == fetched


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["launch", "e2e/unsupported"], 2, "RwkvForCausalLM is a state-space or recurrent model"),
        (["launch", "e2e/missing"], 3, "e2e/missing"),
        (["show", "nobody"], 3, "nobody"),
        (["launch", "no slash ../.."], 2, "model id"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_with_a_next_step(
    slipway_up: RunningSlipway, hub: HubServer, tmp_path: Path, *, argv: list[str], code: int, says: str
) -> None:
    hub.add_repo("e2e/unsupported", models.unsupported_model(tmp_path / "unsupported"))
    result = slipway_up.cli(*argv)
    assert result.returncode == code, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_status_and_doctor_agree_that_all_is_well(slipway_up: RunningSlipway) -> None:
    status = slipway_up.cli("status", "--json")
    assert status.returncode == 0, status.stderr
    assert {process["name"]: process["state"] for process in json.loads(status.stdout)["processes"]} == dict.fromkeys(
        ["redis", "local-host", "web", "worker", "scheduler"], "ready"
    )
    doctor = slipway_up.cli("doctor", "--json")
    findings = {finding["what"]: finding["verdict"] for finding in json.loads(doctor.stdout)}
    assert doctor.returncode == 0, findings
    assert findings["worker"] == findings["local host"] == findings["broker"] == findings["model hub"] == "ok"
    assert findings["processes"] == findings["waiting rows"] == "ok", doctor.stdout


def test_every_process_says_that_it_lives_and_nothing_is_unmatched(slipway_up: RunningSlipway) -> None:
    def checked() -> bool:
        (provider,) = slipway_up.api("GET", "/admin/orphans")["providers"]
        return provider["name"] == "local" and provider["checked_at"] is not None and provider["unmatched"] == 0

    eventually(checked, "the local provider's list was read")
    alive = {process["kind"]: process["state"] for process in slipway_up.api("GET", "/admin/workers")["items"]}
    assert alive == {"web": "alive", "worker": "alive", "scheduler": "alive"}


def test_an_engine_that_an_older_database_does_not_know_is_adopted(slipway_up: RunningSlipway) -> None:
    with launched(slipway_up, "restored", "slipway/starter") as result:
        assert result.returncode == 0, result.stderr
        before = slipway_up.instance("restored")
        said = streamed(before["api_url"], slipway_up.api_key, before["model"])
        with sqlite3.connect(slipway_up.data_dir / "slipway.db", timeout=30) as database:
            database.execute("DELETE FROM replica WHERE instance_id = ?", (UUID(before["id"]).hex,))
            database.execute("DELETE FROM instance WHERE id = ?", (UUID(before["id"]).hex,))
        eventually(lambda: slipway_up.api("GET", "/admin/orphans")["items"], "the engine is on the list")
        (orphan,) = slipway_up.api("GET", "/admin/orphans")["items"]
        assert (orphan["state"], orphan["adoptable"]) == ("unknown", True)
        slipway_up.api("POST", f"/admin/orphans/{orphan['id']}/adopt")
        eventually(lambda: slipway_up.instance("restored")["direct_url"], "the engine is seen to answer")
        after = slipway_up.instance("restored")
        assert (after["id"], after["api_url"], after["direct_url"]) == (
            before["id"],
            before["api_url"],
            before["direct_url"],
        )
        assert streamed(after["api_url"], slipway_up.api_key, after["model"]) == said


def test_a_second_up_is_refused_before_anything_starts(slipway_up: RunningSlipway, tmp_path: Path) -> None:
    same_folder = slipway_up.cli("up", "--data", str(slipway_up.data_dir), "--port", str(free_port()))
    assert same_folder.returncode == 1
    assert f"process {slipway_up.process.pid}" in same_folder.stderr
    port = slipway_up.url.rpartition(":")[2]
    same_port = slipway_up.cli("up", "--data", str(tmp_path / "other"), "--port", port)
    assert same_port.returncode == 1
    assert f"port {port}" in same_port.stderr
    assert "slipway down" not in same_port.stderr


def test_what_up_leaves_for_its_user_is_private(slipway_up: RunningSlipway) -> None:
    for name in ("client.json", "client.header", "secret.key"):
        assert (slipway_up.data_dir / name).stat().st_mode & 0o077 == 0
    logs = "".join(path.read_text(errors="replace") for path in (slipway_up.data_dir / "logs").iterdir())
    assert slipway_up.api_key not in logs
    assert slipway_up.setup_url.rpartition("=")[2] not in logs
    assert (slipway_up.data_dir / "secret.key").read_text() not in logs


def test_terminate_leaves_no_process(slipway_up: RunningSlipway, hub: HubServer, tmp_path: Path) -> None:
    hub.add_repo("e2e/short", models.tiny_llama(tmp_path / "short"))
    before = {process.pid for process in family(slipway_up.process.pid)}
    with launched(slipway_up, "short", "e2e/short") as result:
        assert result.returncode == 0, result.stderr
        engine = [process for process in family(slipway_up.process.pid) if process.pid not in before]
        assert engine
    eventually(lambda: not alive(engine), "the engine's processes end")
