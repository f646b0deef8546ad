"""What needs no database: figures in words, snippets, the timeline."""

from __future__ import annotations

import ast
import json
import shlex
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from control_plane.instances.schemas import EventView, InstanceView
from web import formatting
from web.snippets import snippets
from web.timeline import run_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (formatting.size(0), "0 B"),
        (formatting.size(999), "999 B"),
        (formatting.size(1000), "1.00 kB"),
        (formatting.size(12_345_678), "12.3 MB"),
        (formatting.size(999_960), "1.00 MB"),
        (formatting.size(16_060_000_000), "16.1 GB"),
        (formatting.memory(3 << 30), "3.00 GiB"),
        (formatting.rate(84_300_000), "84.3 MB/s"),
        (formatting.parameters(8_030_000_000), "8.03 B"),
        (formatting.parameters(135_000_000), "135 M"),
        (formatting.number(131072), "131 072"),
        (formatting.duration(0.2), "0 s"),
        (formatting.duration(59.6), "1 min 0 s"),
        (formatting.duration(125), "2 min 5 s"),
        (formatting.duration(3600), "1 h"),
        (formatting.duration(100_000), "1 d 3 h"),
        (formatting.money(0), "$0.00"),
        (formatting.money(0.0012), "$0.0012"),
        (formatting.money(1234.5), "$1,234.50"),
        (formatting.ago(NOW - timedelta(seconds=3), NOW), "just now"),
        (formatting.ago(NOW - timedelta(minutes=59, seconds=59), NOW), "59 min ago"),
    ],
)
def test_figures_read_well(said: str, expected: str) -> None:
    assert said.replace(formatting.THIN, " ") == expected


@pytest.mark.parametrize("key", [None, "sk-slip-abc"])
def test_snippets_are_programs(key: str | None) -> None:
    url, model = "http://h:1/i/a b'c/v1", 'org/it\'s "odd"'
    curl, python, javascript = snippets(url, model, key)
    argv = shlex.split(curl.code.replace("\\\n", " "))
    assert argv[:2] == ["curl", f"{url}/chat/completions"]
    assert f"Authorization: Bearer {key or '$SLIPWAY_API_KEY'}" in argv
    assert json.loads(argv[-1])["model"] == model
    constants = [node.value for node in ast.walk(ast.parse(python.code)) if isinstance(node, ast.Constant)]
    assert {url, model, key or "SLIPWAY_API_KEY"} <= set(constants)
    assert json.dumps(model) in javascript.code


def instance_at(phase: str, **values: Any) -> InstanceView:
    shown = {
        **dict.fromkeys(InstanceView.model_fields),
        **{"id": uuid4(), "name": "n", "slug": "n", "model": "org/m", "revision": "main", "phase": phase},
        **{"reason": "why", "since": NOW, "desired": "running", "quantization": "auto", "engine": {}, "replicas": []},
        **{
            "accelerator_count": 0,
            "limits": {},
            "replica_count": 1,
            "generation": 0,
            "api_url": "u",
            "price_per_hour": 0,
            "cost_so_far": 0,
            "created_at": NOW,
        },
    }
    return InstanceView.model_validate(shown | values)


def moves(*phases: str) -> list[EventView]:
    """Events 10 s apart, the last one now."""
    pairs = zip([None, *phases], phases, strict=False)
    return [
        EventView(
            id=uuid4(),
            at=NOW - timedelta(seconds=10 * (len(phases) - 1 - index)),
            actor="system:x",
            action=f"instance.{to}",
            message="",
            data={"from": origin} if origin else {},
        )
        for index, (origin, to) in enumerate(pairs)
    ]


def test_the_timeline_has_past_present_and_what_is_ahead() -> None:
    steps = run_of(instance_at("starting"), moves("requested", "downloading", "provisioning", "starting"))
    assert [(step.phase, step.when, step.seconds) for step in steps] == [
        ("requested", "past", 10),
        ("downloading", "past", 10),
        ("provisioning", "past", 10),
        ("starting", "present", None),
        ("running", "ahead", None),
    ]


def test_the_timeline_begins_at_the_latest_start() -> None:
    history = moves("requested", "provisioning", "failed", "requested", "provisioning")
    steps = run_of(instance_at("provisioning", model="slipway/starter"), history)
    assert [step.phase for step in steps] == ["requested", "provisioning", "starting", "running"]
    crashed = moves("requested", "provisioning", "starting", "running", "provisioning", "starting")
    assert [step.phase for step in run_of(instance_at("starting"), crashed)] == ["provisioning", "starting", "running"]


def test_a_resting_instance_has_nothing_ahead() -> None:
    assert [step.phase for step in run_of(instance_at("failed"), moves("requested", "failed"))] == [
        "requested",
        "failed",
    ]
