"""The load client against a real server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from engine.servers import LoadClient

from tests.serving_image.conftest import make_echo_model
from tests.serving_image.serving import RunningServer, running_server

STREAMED = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def client() -> Iterator[LoadClient]:
    with LoadClient.start() as started:
        yield started


@pytest.fixture(scope="module")
def echo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose model repeats its prompt."""
    folder = make_echo_model(tmp_path_factory.mktemp("echo"))
    with running_server(folder, "--served-model-name", "echo", engine="echo") as server:
        yield server


def port_of(server: RunningServer) -> int:
    port = urlsplit(server.url).port
    assert port is not None
    return port


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "echo", "prompt": [65, 66], "max_tokens": 8, **STREAMED, **fields}


def test_it_counts_the_tokens_of_every_stream_in_the_order_of_the_bodies(
    client: LoadClient, echo_server: RunningServer
) -> None:
    lengths = (1, 40, 3, 17)
    outcomes = client.send(port_of(echo_server), [body(max_tokens=length) for length in lengths], limit=30)
    assert [outcome["tokens"] for outcome in outcomes] == list(lengths)
    assert [sum(count for _, count in outcome["events"]) for outcome in outcomes] == list(lengths)
    for outcome in outcomes:
        moments = [moment for moment, _ in outcome["events"]]
        assert outcome["sent"] < moments[0]
        assert moments == sorted(moments)


def test_a_refused_request_says_why_and_the_next_one_works(client: LoadClient, echo_server: RunningServer) -> None:
    refused, answered = client.send(port_of(echo_server), [body(model="nobody"), body()], limit=30)
    assert "nobody" in refused["error"]
    assert answered["tokens"] == 8


def test_nobody_listens(client: LoadClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    (outcome,) = client.send(port, [body()], limit=5)
    assert "cannot connect" in outcome["error"]
