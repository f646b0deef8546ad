"""The port is taken before anything starts, or the reason is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.errors import Invalid
from control_plane.settings import Settings
from control_plane.supervisor.listener import PortInUse, listen


def test_a_port_in_use_is_named() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1 is in use"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_refused(host: str) -> None:
    with pytest.raises(Invalid, match="listen"):
        listen(host, 0)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8123"),
        ("0.0.0.0", "http://127.0.0.1:8123"),  # noqa: S104 (a setting, nothing is bound)
        ("::", "http://[::1]:8123"),
        ("gpu-box", "http://gpu-box:8123"),
    ],
)
def test_the_address_for_this_machine_can_be_typed(host: str, url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, host=host, port=8123)
    assert settings.local_url == settings.public_url == url
