"""What Slurm's records mean: jobs that are hard to bring about, nodes that this machine does not have, tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest

from control_plane.providers.slurm_jobs.job import Job, Tag
from control_plane.providers.slurm_jobs.node import Gpus, Node, Partition, Tariff, offers
from control_plane.providers.slurm_jobs.token import LIFESPAN_S, TokenSource

TAG = Tag("owner", "boot-1", {"instance": 'a "quoted" name'})
PARTITION = Partition("gpu", is_default=True, up=True)
GIB = 1 << 30


def job(**changes: object) -> Job:
    record = {"job_id": 17, "name": "replica", "job_state": "RUNNING", "comment": TAG.to_comment(), "exit_code": 0}
    return Job.from_json(record | {"batch_host": "node1", "restart_cnt": 0, "submit_time": 1, "user_id": 1} | changes)


def node(**changes: object) -> Node:
    record = {"name": "n1", "state": "idle", "partitions": ["gpu"], "cpus": 8, "real_memory": 1024, "gres": "gpu:8"}
    return Node.from_json(record | changes)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"job_state": "TIMEOUT", "time_limit": 60}, "time limit of 60 min is over"),
        ({"job_state": "BOOT_FAIL"}, "node node1 did not boot"),
        ({"job_state": "PREEMPTED"}, "preempted by a job of higher priority"),
        ({"job_state": "NODE_FAIL", "batch_host": ""}, "its node failed"),
        ({"job_state": "FAILED", "exit_code": 75 << 8}, "cut off from the shared folder"),
        ({"job_state": "FAILED", "exit_code": 1 << 8}, None),
        ({"job_state": "OUT_OF_MEMORY"}, None),
        ({"job_state": "COMPLETED"}, None),
    ],
)
def test_what_was_taken_away_and_what_ended_by_itself(record: dict[str, object], words: str | None) -> None:
    seen = job(**record)
    assert not seen.live
    assert seen.why_taken_away is None if words is None else words in (seen.why_taken_away or "")


def test_ends_of_its_own() -> None:
    assert "want of memory" in (job(job_state="OUT_OF_MEMORY").why_ended or "")
    assert job(job_state="FAILED", exit_code=3 << 8).exit_code == 3
    assert job(job_state="FAILED", exit_code=9).exit_code == -9
    assert job().exit_code is None


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"state_reason": "Priority"}, "Slurm job 17 waits behind jobs of higher priority (Priority)"),
        ({"state_reason": "ReqNodeNotAvail"}, "down, drained or reserved (ReqNodeNotAvail)"),
        ({"state_reason": "SomethingNew"}, "Slurm job 17 waits (SomethingNew)"),
        ({"state_reason": "None"}, "waits to be looked at by the scheduler"),
        ({"state_reason": "Resources", "restart_cnt": 1}, "waits again, after a run that was cut short, for hardware"),
        (
            {"state_reason": "Resources", "restart_cnt": 3},
            "waits again, after 3 runs that were cut short, for hardware",
        ),
    ],
)
def test_what_waits_says_for_what(record: dict[str, object], words: str) -> None:
    assert words in job(job_state="PENDING", **record).why_waiting


def test_tags_and_other_peoples_comments() -> None:
    assert job().tag == TAG
    for comment in ("", "my job", "{}", "[]", "7", '{"slipway": "x", "boot": "y", "labels": 3}'):
        assert job(comment=comment).tag is None


@pytest.mark.parametrize(
    ("gres", "used", "expected"),
    [
        ("gpu:h200:8(S:0-1)", "gpu:h200:3(IDX:0,2-3)", {"h200": Gpus(8, 3)}),
        ("gpu:4", "gpu:1(IDX:0)", {"": Gpus(4, 1)}),
        (
            "gpu:a100:4(S:0),gpu:t4:2(S:1)",
            "gpu:a100:0(IDX:N/A),gpu:t4:2(IDX:0-1)",
            {"a100": Gpus(4, 0), "t4": Gpus(2, 2)},
        ),
        ("shard:8,gpu:nvidia_a100-sxm4-80gb:2", "", {"nvidia_a100-sxm4-80gb": Gpus(2, 0)}),
        ("", "", {}),
        (None, None, {}),
    ],
)
def test_gpus_of_a_node(gres: str | None, used: str | None, expected: dict[str, Gpus]) -> None:
    assert node(gres=gres, gres_used=used).gpus == expected


@pytest.mark.parametrize(
    ("kind", "gib"), [("h200", 139), ("nvidia_h100_pcie", 79), ("a100-sxm4-80gb", 78.4), ("odd", 0), ("mine", 33.5)]
)
def test_memory_of_a_gpu(kind: str, gib: float) -> None:
    tariff = Tariff({}, {"mine": 33.5})
    assert tariff.gpu_memory_bytes(kind) == int(gib * GIB)
    (offer,) = offers([node(gres=f"gpu:{kind}:2")], PARTITION, tariff)[1:]
    assert offer.available is (gib > 0)
    assert ("SLIPWAY_SLURM_GPU_MEMORY_GIB" in (offer.why_unavailable or "")) is (gib == 0)


def test_offers_count_what_is_usable() -> None:
    nodes = [
        node(name="n1", gres="gpu:t4:8", gres_used="gpu:t4:6(IDX:0-5)"),
        node(name="n2", gres="gpu:t4:4", state_flags=["DRAIN"]),
        node(name="n3", gres="gpu:t4:4", state="down"),
        node(name="n4", gres="gpu:t4:16", partitions=["other"]),
    ]
    cpu, gpu = offers(nodes, PARTITION, Tariff({"t4": 0.5, "cpu": 0.1}, {}))
    assert (gpu.id, gpu.free_count, gpu.accelerator_count, gpu.available) == ("slurm-gpu-t4", 2, 8, True)
    assert (gpu.price_per_hour, cpu.price_per_hour, cpu.available) == (0.5, 0.1, True)
    closed = offers(nodes[1:3], PARTITION, Tariff({}, {}))
    assert [offer.available for offer in closed] == [False, False]
    assert "out of service (n2: idle drain)" in (closed[1].why_unavailable or "")


def test_a_token_of_our_own_making(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(b"\0key\n")
    token = TokenSource("someone", key_file=key_file, clock=lambda: 1000.0).token()
    signed, _, signature = token.rpartition(".")
    expected = hmac.new(b"\0key\n", signed.encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "=") == expected
    claims = json.loads(base64.urlsafe_b64decode(signed.split(".")[1] + "=="))
    assert claims == {"iat": 1000, "exp": 1000 + LIFESPAN_S, "sun": "someone"}
