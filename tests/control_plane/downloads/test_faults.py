"""A hub that misbehaves: what is survived, what is given up, and what a person is told."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.downloads.failures import FinalFailure, TransientFailure
from control_plane.downloads.remote import RemoteFiles, Repository, may_follow
from control_plane.downloads.transfer import Transfer
from control_plane.hub.source import RepositoryFile
from tests.control_plane.downloads.conftest import KIB, MIB, QUICK, Published

PADDING = "padding.safetensors"
CDN = f"/cdn/*{PADDING}"
SHA = "c" * 40


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda faults: faults.truncate(1000, CDN, times=2), id="truncates"),
        pytest.param(lambda faults: faults.error(500, CDN, times=2), id="500"),
        pytest.param(lambda faults: faults.error(503, f"/org/big/resolve/*/{PADDING}", times=2), id="503"),
        pytest.param(lambda faults: faults.error(429, CDN, times=2, headers={"Retry-After": "0"}), id="429"),
        pytest.param(lambda faults: faults.hang(CDN, after=500, times=2), id="falls silent"),
        pytest.param(lambda faults: faults.hang(CDN, after=0, times=2), id="does not answer"),
        pytest.param(lambda faults: faults.corrupt(CDN, times=1), id="spoils a range once"),
    ],
)
def test_a_fault_that_passes_is_survived(fault: Any, big: Published, tmp_path: Path) -> None:
    fault(big.hub.faults)
    big.assert_equal(big.fetch(tmp_path, replace(QUICK, read_timeout_s=0.3)))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda faults: faults.truncate(0, CDN, times=None), "the connection to .* failed"),
        (lambda faults: faults.error(500, CDN, times=None), "answered with status 500"),
        (lambda faults: faults.error(429, CDN, times=None), "asks for fewer requests"),
        (lambda faults: faults.error(429, CDN, headers={"Retry-After": "600"}), "asks for fewer requests"),
        (lambda faults: faults.hang(CDN, times=None), "has fallen silent"),
        (lambda faults: faults.error(403, CDN, times=None), "no longer valid"),
    ],
)
def test_a_fault_that_stays_is_given_up_for_now(fault: Any, reason: str, big: Published, tmp_path: Path) -> None:
    fault(big.hub.faults)
    with pytest.raises(TransientFailure, match=reason) as failure:
        big.fetch(tmp_path, replace(QUICK, read_timeout_s=0.1))
    assert failure.value.next_step


def test_a_dead_hub_is_given_up_for_now(big: Published, tmp_path: Path) -> None:
    with big.hub.dead(), pytest.raises(TransientFailure, match=r"the connection to http://127\.0\.0\.1:.* failed"):
        big.fetch(tmp_path)


def test_a_hub_that_asks_to_wait_long_is_not_asked_again_meanwhile(big: Published, tmp_path: Path) -> None:
    big.hub.faults.error(429, f"/org/big/resolve/*/{PADDING}", times=None, headers={"Retry-After": "600"})
    with pytest.raises(TransientFailure) as failure:
        big.fetch(tmp_path, replace(QUICK, connections=1))
    assert failure.value.retry_after_s == 600
    assert len(big.hub.requests_for(f"/org/big/resolve/*/{PADDING}")) == 1


def test_wrong_bytes_twice_are_refused_and_not_kept(big: Published, tmp_path: Path) -> None:
    big.hub.faults.corrupt(CDN)
    with pytest.raises(FinalFailure, match=f"{PADDING} arrived twice with a wrong checksum"):
        big.fetch(tmp_path)
    assert not list(tmp_path.rglob("snapshots"))
    big.hub.faults.clear()
    big.assert_equal(big.fetch(tmp_path))


def test_a_small_file_is_verified_too(big: Published, tmp_path: Path) -> None:
    big.hub.faults.corrupt("*/config.json")
    with pytest.raises(FinalFailure, match=r"config\.json arrived twice with a wrong checksum"):
        big.fetch(tmp_path)


@pytest.mark.parametrize(
    ("token", "reason", "next_step"),
    [
        (None, "org/big is gated: .* was not sent a token", r"Accept the terms at http://.*/org/big, .*HF_TOKEN"),
        ("hf_other", "org/big is gated: .* has not let this token in", "Accept the terms at"),
        ("hf_unknown", r"refuses to hand out org/big \(status 401\)", "Set a valid token"),
    ],
)
def test_a_gated_model_says_what_to_do(
    token: str | None, reason: str, next_step: str, big: Published, tmp_path: Path
) -> None:
    big.hub.add_repo("org/big", big.folder, gated="manual")
    big.hub.add_token("hf_other")
    with pytest.raises(FinalFailure, match=reason) as failure:
        big.fetch(tmp_path, token=token)
    assert re.match(next_step, failure.value.next_step)


def test_what_has_gone_from_the_hub_is_missed_by_name(big: Published, tmp_path: Path) -> None:
    with pytest.raises(FinalFailure, match=r"no longer has org/big at commit dddddddddddd"):
        asyncio.run(Transfer(replace(big.repository, commit_sha="d" * 40), big.wanted, tmp_path, QUICK).run())
    with pytest.raises(FinalFailure, match="no longer has org/none at commit"):
        asyncio.run(Transfer(replace(big.repository, model="org/none"), big.wanted, tmp_path, QUICK).run())


def test_a_redirect_to_a_foreign_host_is_refused(big: Published, tmp_path: Path) -> None:
    big.hub.cdn_host = "localhost"  # the same server by another name
    with pytest.raises(FinalFailure, match="which it may not send us to") as failure:
        big.fetch(tmp_path)
    assert "localhost" in failure.value.reason
    assert big.hub.requests_for("/cdn/*") == []


def test_redirects_without_end_are_refused(big: Published, tmp_path: Path) -> None:
    big.hub.faults.redirect(f"{big.hub.url}/org/big/resolve/main/config.json", "*/config.json")
    with pytest.raises(FinalFailure, match="more than 5 times"):
        big.fetch(tmp_path)


@pytest.mark.parametrize(
    ("endpoint", "origin", "target", "allowed"),
    [
        ("https://hub.example", "https://hub.example/a", "https://cdn.other.example/b", True),
        ("https://hub.example", "https://cdn.other.example/b", "https://eu.cdn.example/b", True),
        ("https://hub.example", "https://hub.example/a", "http://hub.example/a", False),
        ("https://hub.example", "https://hub.example/a", "https://user:secret@cdn.example/b", False),
        ("https://hub.example", "https://hub.example/a", "file:///etc/passwd", False),
        ("http://hub.example:8100", "http://hub.example:8100/a", "http://hub.example:8100/b", True),
        ("http://hub.example:8100", "http://hub.example:8100/a", "http://hub.example:8101/b", False),
        ("http://hub.example:8100", "http://hub.example:8100/a", "https://cdn.example/b", False),
        ("http://hub.example", "http://hub.example/a", "http://hub.example.evil.example/b", False),
    ],
)
def test_where_a_hub_may_send_us(endpoint: str, origin: str, target: str, *, allowed: bool) -> None:
    assert may_follow(endpoint, origin, target) is allowed


def test_the_token_goes_to_the_hub_and_not_to_its_storage() -> None:
    """Over https in memory: the local hub speaks plain http, which may not redirect to another host at all."""
    seen: dict[str, str | None] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        seen[request.url.host] = request.headers.get("Authorization")
        if request.url.host == "hub.example":
            return httpx.Response(302, headers={"Location": "https://cdn.example/x", "X-Linked-Etag": f'"{"a" * 64}"'})
        return httpx.Response(206, headers={"Content-Range": "bytes 0-3/4"}, stream=httpx.ByteStream(b"data"))

    async def read() -> bytes:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            files = RemoteFiles(client, Repository("https://hub.example", "org/m", SHA, "hf_secret"))
            file = RepositoryFile("model.safetensors", 4, "a" * 64, "a" * 64)
            return b"".join([chunk async for chunk in files.stream(file, 0, 4)])

    assert asyncio.run(read()) == b"data"
    assert seen == {"hub.example": "Bearer hf_secret", "cdn.example": None}
    assert "hf_secret" not in repr(Repository("https://hub.example", "org/m", SHA, "hf_secret"))


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (httpx.Response(200, content=b"whole"), "does not serve ranges"),
        (httpx.Response(206, headers={"Content-Range": "bytes 0-1/5"}, content=b"wh"), "another part"),
        (httpx.Response(206, headers={"Content-Range": "bytes 2-3/9"}, content=b"ol"), "another part"),
        (httpx.Response(206, headers={"Content-Encoding": "br"}, content=b"\0"), "compresses"),
        (httpx.Response(416, headers={"Content-Range": "bytes */1"}), "with status 416"),
        (httpx.Response(302, headers={"Location": "ftp://hub.example/x"}), "may not send us to"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused(response: httpx.Response, reason: str) -> None:
    async def read() -> None:
        transport = httpx.MockTransport(lambda _: response)
        async with httpx.AsyncClient(transport=transport) as client:
            files = RemoteFiles(client, Repository("https://hub.example", "org/m", SHA))
            async for _ in files.stream(RepositoryFile("config.json", 5, "b" * 40), 2, 4):
                pass

    with pytest.raises(FinalFailure, match=reason):
        asyncio.run(read())


def test_a_disk_without_room_is_refused_before_the_first_byte(big: Published, tmp_path: Path) -> None:
    options = replace(QUICK, free_bytes=lambda _: MIB, disk_margin_bytes=MIB)
    with pytest.raises(FinalFailure, match=r"org/big needs 2\.\d MB more on disk, .* 1\.0 MB are free") as failure:
        big.fetch(tmp_path, options)
    assert "HF_HOME" in failure.value.next_step
    assert str(tmp_path) in failure.value.next_step
    assert big.hub.requests == []


def test_room_is_needed_only_for_what_is_missing(big: Published, tmp_path: Path) -> None:
    big.fetch(tmp_path)
    big.assert_equal(big.fetch(tmp_path, replace(QUICK, free_bytes=lambda _: 0, disk_margin_bytes=MIB)))


def test_a_disk_that_fills_up_keeps_what_was_fetched(
    big: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, room = os.pwrite, MIB

    def limited(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room -= len(data)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", limited)
    with pytest.raises(FinalFailure, match="the disk is full; what was fetched is kept"):
        big.fetch(tmp_path)
    monkeypatch.undo()
    kept = big.transfer(tmp_path).bytes_done
    assert kept > MIB - 256 * KIB
    big.hub.forget()
    big.assert_equal(big.fetch(tmp_path))
    assert big.hub.bytes_sent() == sum(file.size for file in big.wanted) - kept


def test_a_cache_that_cannot_be_written_is_explained(big: Published, tmp_path: Path) -> None:
    (tmp_path / ".slipway-parts").write_text("a file where a folder belongs")
    with pytest.raises(FinalFailure, match="the folder of the models cannot be written"):
        big.fetch(tmp_path)


def test_an_endpoint_that_is_no_address_is_refused(big: Published, tmp_path: Path) -> None:
    with pytest.raises(FinalFailure, match="has no valid address"):
        asyncio.run(Transfer(replace(big.repository, endpoint="hub.example"), big.wanted, tmp_path, QUICK).run())
