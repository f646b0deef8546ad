"""The embedded broker is a real Redis that nobody else can reach."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from control_plane import broker
from control_plane.settings import Settings
from control_plane.supervisor.data_folder import prepare
from tests.support.processes import eventually


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=tmp_path / "data with space")
    prepare(settings)
    return settings


@contextmanager
def running(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(broker.server_argv(settings), stdout=subprocess.DEVNULL) as server:
        try:
            eventually(lambda: _answers(settings), "Redis answers")
            yield server
        finally:
            server.kill()


def _answers(settings: Settings) -> bool:
    try:
        return broker.ping(settings.broker_url)
    except redis.RedisError:
        return False


def test_it_remembers_through_sigkill_and_listens_on_its_socket_only(settings: Settings) -> None:
    assert settings.embedded_broker
    with running(settings) as server, redis.Redis(unix_socket_path=str(settings.redis_socket)) as client:
        client.set("kept", "yes")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert psutil.Process(server.pid).net_connections("inet") == []
        assert settings.redis_socket.stat().st_mode & 0o077 == 0
    with running(settings), redis.Redis(unix_socket_path=str(settings.redis_socket)) as client:
        assert client.get("kept") == b"yes"


def test_a_dead_broker_says_why(settings: Settings) -> None:
    with pytest.raises(redis.RedisError, match=r"redis\.sock"):
        broker.ping(settings.broker_url)


def test_the_version_of_a_server_program_is_read(tmp_path: Path) -> None:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\necho 'Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64'\n")
    program.chmod(0o755)
    assert broker.server_version(str(program)) == (6, 0, 16)
    assert broker.server_version(str(tmp_path / "missing")) == (0,)
    assert broker.server_version(broker.server_program()) >= broker.MINIMUM_VERSION
