"""A hub that is down, slow, failing or treacherous: one typed error each, soon, and never a hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.errors import SlipwayError
from control_plane.hub import errors
from control_plane.hub.client import HubClient
from control_plane.hub.hosts import HubHosts
from control_plane.hub.ids import ModelId
from control_plane.hub.service import resolve
from control_plane.hub.transport import Limits
from control_plane.settings import Settings
from tests.hub import HubServer, models

TINY = ModelId.parse("org/tiny")
IMPATIENT = Limits(silence=0.3, total=1.0)


@pytest.fixture(autouse=True)
def published(hub: HubServer, tmp_path: Path) -> None:
    hub.add_repo("org/tiny", models.tiny_llama(tmp_path / "tiny"))


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (500, {}, errors.HubUnreachable),
        (503, {}, errors.HubUnreachable),
        (404, {}, errors.RepositoryNotFound),
        (401, {}, errors.RepositoryNotFound),  # what the hub says to strangers about private and missing models
        (403, {}, errors.HubTokenRejected),
        (403, {"X-Error-Code": "GatedRepo"}, errors.GatedRepository),
        (429, {"Retry-After": "7"}, errors.HubRateLimited),
    ],
)
def test_error_statuses(
    hub: HubServer, settings: Settings, status: int, headers: dict[str, str], error: type[SlipwayError]
) -> None:
    for path in ("/api/*", "*/config.json"):
        hub.faults.error(status, path, headers=headers, body=b"x" * 5_000_000)
        with pytest.raises(error) as caught:
            resolve(settings, TINY)
        if status == 429:
            assert caught.value.extra["retry_after_s"] == 7
    assert resolve(settings, TINY).id == "org/tiny"


@pytest.mark.parametrize("path", ["/api/*", "*/config.json"])
def test_silence_is_an_error(hub: HubServer, settings: Settings, path: str) -> None:
    hub.faults.hang(path)
    with pytest.raises(errors.HubUnreachable, match="in time"):
        resolve(settings, TINY, limits=IMPATIENT)


def test_a_trickle_is_an_error(hub: HubServer, settings: Settings) -> None:
    """A byte now and then keeps within the silence limit, and would go on for minutes."""
    hub.faults.rate(20, "*/config.json")
    with pytest.raises(errors.HubUnreachable, match="in time"):
        resolve(settings, TINY, limits=IMPATIENT)


def test_a_dropped_connection_is_an_error(hub: HubServer, settings: Settings) -> None:
    hub.faults.truncate(100, "*/config.json")
    with pytest.raises(errors.HubUnreachable):
        resolve(settings, TINY)


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://hub.example", "http://", "http://[", "http://127.0.0.1:1"])
def test_an_endpoint_that_cannot_be_one_is_an_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(errors.HubUnreachable):
        resolve(settings, TINY)


def test_a_dead_hub_is_an_error(hub: HubServer, settings: Settings) -> None:
    with hub.dead(), pytest.raises(errors.HubUnreachable, match="reached"):
        resolve(settings, TINY)


PINNED = b'{"id": "org/tiny", "sha": "' + b"a" * 40 + b'", '


@pytest.mark.parametrize(
    "body",
    [
        *(b"<html>", b"[]", b"{}", b'{"id": "org/tiny"}', b'{"id": "x", "sha": "main"}', b'{"id": "x", "sha": 7}'),
        PINNED + b'"siblings": 7}',
        PINNED + b'"siblings": [{"rfilename": 7}]}',
        PINNED + b'"siblings": [{"rfilename": "config.json"}]}',
        PINNED + b'"siblings": [{"rfilename": "config.json", "size": "1", "blobId": "x"}]}',
        PINNED + b'"siblings": [], "safetensors": {"parameters": {"F32": "many"}, "total": 1}}',
        PINNED + b'"siblings": [], "safetensors": 7}',
    ],
)
def test_an_answer_that_is_not_a_hub_s(hub: HubServer, settings: Settings, body: bytes) -> None:
    hub.faults.content(body, "/api/*")
    with pytest.raises(errors.HubUnreachable):
        resolve(settings, TINY)


@pytest.mark.parametrize("path", ["/api/*", "*/config.json"])
def test_redirects_to_other_hosts_are_refused(hub: HubServer, settings: Settings, path: str) -> None:
    with HubServer() as other:
        hub.faults.redirect(f"{other.url}/stolen", path)
        with pytest.raises(errors.RedirectRefused, match=r"127\.0\.0\.1"):
            resolve(settings, TINY, token=None)
        assert other.requests == []


def test_redirects_within_the_hub_are_followed_but_not_for_ever(hub: HubServer, settings: Settings) -> None:
    hub.faults.redirect("/org/tiny/resolve/main/config.json", "*/config.json", times=1)
    assert resolve(settings, TINY).id == "org/tiny"
    hub.faults.redirect("/loop", "*/config.json", times=1)
    hub.faults.redirect("/loop", "/loop")
    with pytest.raises(errors.RedirectRefused, match="more than"):
        resolve(settings, TINY)


def test_the_token_goes_to_the_hub_only(hub: HubServer) -> None:
    hub.add_token("hf_mine")
    client = HubClient(hub.url, "hf_mine")
    model = client.model(TINY, "main")
    model.read("config.json", limit=10_000)
    assert {request.authorization for request in hub.requests} == {"Bearer hf_mine"}
    assert "hf_mine" not in repr(client)
    assert "hf_mine" not in repr(model)


@pytest.mark.parametrize(
    ("endpoint", "url", "allowed"),
    [
        ("https://huggingface.co", "https://huggingface.co/x", True),
        ("https://huggingface.co", "https://cdn-lfs.huggingface.co/x", True),
        ("https://huggingface.co", "https://cas-bridge.xethub.hf.co/x", True),
        ("https://huggingface.co", "http://huggingface.co/x", False),
        ("https://huggingface.co", "https://huggingface.co.evil.org/x", False),
        ("https://huggingface.co", "https://evilhf.co/x", False),
        ("https://huggingface.co", "https://evil.org/huggingface.co", False),
        ("https://huggingface.co", "https://huggingface.co@evil.org/", False),
        ("https://huggingface.co", "file:///etc/passwd", False),
        ("https://hub.example", "https://hub.example/x", True),
        ("https://hub.example", "https://hub.example:8443/x", False),
        ("https://hub.example", "https://cdn.hf.co/x", False),
        ("http://127.0.0.1:8100", "http://127.0.0.1:8100/x", True),
        ("http://127.0.0.1:8100", "http://127.0.0.1:22/x", False),
        ("http://127.0.0.1:8100", "http://169.254.169.254/latest", False),
    ],
)
def test_hosts_are_compared_whole(endpoint: str, url: str, allowed: bool) -> None:
    assert HubHosts(endpoint).allows(url) is allowed
