"""The Caddyfile that compose uses, run by a real Caddy: TLS, API URLs to the gateways, the rest to the webs."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from control_plane.accounts import api_keys
from control_plane.app import create_app, create_gateway
from control_plane.instances.schemas import InstanceView
from tests.support.http import serving
from tests.support.instances import Plant
from tests.support.processes import eventually
from tests.support.slipway import free_port

CADDYFILE = Path(__file__).parents[3] / "docker" / "Caddyfile"
#: Certificates by its own authority, which is not made known to this machine; no listener on port 80.
OPTIONS = "skip_install_trust\nauto_https disable_redirects"


@contextmanager
def running_caddy(folder: Path, *, webs: list[str], gateways: list[str]) -> Iterator[httpx.Client]:
    """Caddy in front of these; a client that trusts its authority."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "SLIPWAY_DOMAIN": f"localhost:{port}",
        "SLIPWAY_CADDY_TLS": "tls internal",
        "SLIPWAY_CADDY_OPTIONS": OPTIONS,
        "SLIPWAY_WEBS": " ".join(url.removeprefix("http://") for url in webs),
        "SLIPWAY_GATEWAYS": " ".join(url.removeprefix("http://") for url in gateways),
    }
    argv = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "--",
        "caddy",
        "run",
        "--config",
        str(CADDYFILE),
        "--adapter",
        "caddyfile",
    ]
    authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    with (folder / "caddy.log").open("wb") as log:
        caddy = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
    try:
        eventually(authority.exists, "Caddy has an authority")
        trust = ssl.create_default_context(cafile=str(authority))
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trust, trust_env=False, timeout=20) as client:
            eventually(lambda: _answers(client), f"Caddy answers (see {folder / 'caddy.log'})")
            yield client
    finally:
        caddy.terminate()
        caddy.wait(10)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_tls_routes_and_a_gateway_that_is_gone(
    plant: Plant, running: Callable[..., InstanceView], tmp_path: Path
) -> None:
    instance = running()
    key = api_keys.create(plant.context, plant.principal, name="test").secret
    authorised = {"Authorization": f"Bearer {key}"}
    nobody = f"http://127.0.0.1:{free_port()}"
    with (
        serving(create_app(plant.context)) as web,
        serving(create_gateway(plant.context)) as gateway,
        running_caddy(tmp_path, webs=[web], gateways=[gateway, nobody]) as client,
    ):
        assert client.get("/api/v1/instances", headers=authorised).json()["items"][0]["slug"] == instance.slug
        for _ in range(6):
            assert client.get(f"/i/{instance.slug}/v1/models", headers=authorised).status_code == 200
        assert client.get(f"/i/{instance.slug}/v1/models").status_code == 401
        body = {"model": instance.name, "stream": True, "max_tokens": 3}
        with client.stream("POST", "/v1/completions", json=body, headers=authorised) as answer:
            pieces = [piece for piece in answer.iter_raw() if piece]
        assert len(pieces) >= 3, "tokens are passed on as they come"
        assert b"[DONE]" in pieces[-1]
