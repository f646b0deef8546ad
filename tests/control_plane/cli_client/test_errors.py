"""What a person reads when something is wrong: one line, a next step, the right exit code, never a traceback."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane import client_file
from control_plane.client_file import ClientFile
from control_plane.keys import new_api_key
from tests.control_plane.cli_client.conftest import Slipway

#: A key with a right checksum that no server has made.
STRANGER = new_api_key()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address at which nothing listens, and nothing can begin to."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


def test_no_server_is_known(bare_slipway: Slipway) -> None:
    result = bare_slipway("ps")
    assert (result.code, result.out) == (1, "")
    first, second = result.err.splitlines()
    assert "client.json" in first
    assert "slipway up" in second


def test_nothing_answers(bare_slipway: Slipway, nowhere: str) -> None:
    for command in (["ps"], ["chat", "x", "-m", "hi"], ["launch", "a/b", "--json"], ["keys", "list"]):
        result = bare_slipway(*command, SLIPWAY_URL=nowhere, SLIPWAY_API_KEY=STRANGER)
        assert (result.code, result.out) == (1, ""), command
        first, second = result.err.splitlines()
        assert first == f"error: no server answers at {nowhere}"
        assert "slipway up" in second


def test_a_proxy_for_the_world_does_not_swallow_this_machine(slipway: Slipway, nowhere: str) -> None:
    assert slipway("keys", "list", HTTP_PROXY=nowhere, http_proxy=nowhere, ALL_PROXY=nowhere).code == 0


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://[::1", "http://x:y", "http:"])
def test_an_address_that_is_none(bare_slipway: Slipway, address: str) -> None:
    result = bare_slipway("ps", SLIPWAY_URL=address, SLIPWAY_API_KEY=STRANGER)
    assert result.code == 2
    assert result.err.startswith("error: SLIPWAY_URL")


def test_a_key_that_is_not_known(bare_slipway: Slipway, url: str) -> None:
    result = bare_slipway("ps", SLIPWAY_URL=url, SLIPWAY_API_KEY=STRANGER)
    assert result.code == 4
    assert result.err.startswith("error: the API key is unknown")


def test_not_found_has_its_own_code(slipway: Slipway) -> None:
    for command in (["show", "nobody"], ["stop", "nobody"], ["chat", "nobody", "-m", "x"], ["logs", "nobody"]):
        result = slipway(*command)
        assert result.code == 3, command
        assert "there is no instance 'nobody'" in result.err
    assert slipway("keys", "revoke", "nobody").code == 3


@pytest.mark.parametrize(
    "command",
    [
        ["rm", "x"],
        ["launch"],
        ["launch", "a/b", "--replicas", "0"],
        ["chat", "x"],
        ["nonsense"],
        ["keys", "create"],
        ["keys", "create", "x", "--expires-in-days", "-1"],
    ],
)
def test_usage(slipway: Slipway, command: list[str]) -> None:
    result = slipway(*command)
    assert (result.code, result.out) == (2, "")
    assert "Traceback" not in result.err


def test_something_else_answers(bare_slipway: Slipway) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        result = bare_slipway("ps", SLIPWAY_URL=address, SLIPWAY_API_KEY=STRANGER)
        server.shutdown()
    assert result.code == 1
    assert "is not Slipway" in result.err


class TestWhichServer:
    @pytest.fixture
    def data_dir(self, tmp_path: Path) -> Path:
        folder = tmp_path / "client"
        folder.mkdir()
        return folder

    def test_the_file_that_slipway_up_left(self, bare_slipway: Slipway, url: str, api_key: str, data_dir: Path) -> None:
        client_file.write(data_dir, ClientFile(url, api_key))
        assert bare_slipway("keys", "list", "--json").code == 0
        assert bare_slipway("keys", "list", "--json", SLIPWAY_URL=url + "/").code == 0

    def test_its_key_is_for_its_server_only(
        self, bare_slipway: Slipway, url: str, nowhere: str, data_dir: Path
    ) -> None:
        client_file.write(data_dir, ClientFile(nowhere, STRANGER))
        result = bare_slipway("keys", "list", SLIPWAY_URL=url)
        assert result.code == 4
        assert "there is no API key for" in result.err

    def test_the_environment_wins(
        self, bare_slipway: Slipway, url: str, api_key: str, nowhere: str, data_dir: Path
    ) -> None:
        client_file.write(data_dir, ClientFile(nowhere, STRANGER))
        assert bare_slipway("keys", "list", SLIPWAY_URL=url, SLIPWAY_API_KEY=api_key).code == 0
