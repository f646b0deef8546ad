"""Bytes from the hub into the cache: what arrives, what other programs make of it, and how it is asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from control_plane.downloads.failures import FinalFailure
from control_plane.downloads.tables import DownloadState
from control_plane.downloads.transfer import Transfer
from tests.control_plane.downloads.conftest import KIB, QUICK, Published
from tests.hub import HubServer, models

PADDING = "padding.safetensors"


def test_the_snapshot_equals_the_source_and_huggingface_hub_finds_it(big: Published, tmp_path: Path) -> None:
    transfer = big.transfer(tmp_path)
    snapshot = asyncio.run(transfer.run())
    transfer.cache.set_ref("main", big.sha)

    big.assert_equal(snapshot)
    assert snapshot == tmp_path / "models--org--big/snapshots" / big.sha
    assert (snapshot / "config.json").is_symlink()
    assert not (snapshot / "config.json").readlink().is_absolute()
    found = snapshot_download("org/big", cache_dir=tmp_path, local_files_only=True)
    assert Path(found) == snapshot
    assert list((tmp_path / ".slipway-parts").iterdir()) == []


def test_transformers_loads_it_by_name_without_the_network(big: Published, tmp_path: Path) -> None:
    from transformers import LlamaConfig

    transfer = big.transfer(tmp_path)
    asyncio.run(transfer.run())
    transfer.cache.set_ref("main", big.sha)
    config = LlamaConfig.from_pretrained("org/big", cache_dir=tmp_path, local_files_only=True)
    assert config.hidden_size == models.llama_config()["hidden_size"]


def test_what_huggingface_hub_fetched_is_not_fetched_again(big: Published, tmp_path: Path) -> None:
    snapshot_download("org/big", endpoint=big.hub.url, cache_dir=tmp_path, token=False)
    big.hub.forget()
    transfer = big.transfer(tmp_path)
    assert transfer.bytes_done == sum(file.size for file in big.wanted)
    snapshot = asyncio.run(transfer.run())
    assert big.hub.requests == []
    assert all((snapshot / file.path).exists() for file in big.wanted)


def test_ranges_of_a_file_arrive_side_by_side_and_cover_it_once(big: Published, tmp_path: Path) -> None:
    big.hub.faults.hang(f"/cdn/*{PADDING}", after=1000, times=3)

    async def fetch() -> None:
        transfer = big.transfer(tmp_path, replace(QUICK, read_timeout_s=60))
        run = asyncio.create_task(transfer.run())
        # Three connections hang, the fourth brings every other range meanwhile.
        while transfer.progress()[PADDING][0] != size - 3 * (64 * KIB - 1000):
            await asyncio.sleep(0.01)
        big.hub.faults.clear()
        await run

    size = next(file.size for file in big.wanted if file.path == PADDING)
    asyncio.run(asyncio.wait_for(fetch(), 30))
    assert big.hub.bytes_sent(PADDING) == size
    asked = [r.range for r in big.hub.requests_for(f"/cdn/*{PADDING}")]
    assert len(asked) == -(-size // (64 * KIB)) + 3  # three ranges were cut and continued where they ended


def test_the_hub_is_asked_once_per_file_for_the_address_of_its_storage(big: Published, tmp_path: Path) -> None:
    big.fetch(tmp_path, replace(QUICK, connections=1))
    assert len(big.hub.requests_for(f"/org/big/resolve/*/{PADDING}")) == 1
    assert len(big.hub.requests_for(f"/cdn/*{PADDING}")) > 30


def test_an_address_that_expires_in_the_middle_is_renewed(big: Published, tmp_path: Path) -> None:
    big.hub.faults.rate(4_000_000, f"/cdn/*{PADDING}")

    async def fetch() -> Path:
        run = asyncio.create_task(big.transfer(tmp_path).run())
        await asyncio.to_thread(big.hub.wait_until, lambda: big.hub.bytes_sent(PADDING) > 300 * KIB)
        big.hub.expire_links()
        big.hub.faults.clear()
        return await run

    big.assert_equal(asyncio.run(fetch()))


def test_files_of_equal_content_are_fetched_once(hub: HubServer, tmp_path: Path) -> None:
    folder = models.tiny_llama(tmp_path / "model")
    (folder / "copy.json").write_bytes((folder / "config.json").read_bytes())
    (folder / "empty.txt").touch()
    twin = Published(hub, "org/twin", hub.add_repo("org/twin", folder), folder)
    snapshot = twin.fetch(tmp_path / "cache")
    twin.assert_equal(snapshot)
    assert len(hub.requests_for("config.json")) + len(hub.requests_for("copy.json")) == 1
    assert hub.requests_for("empty.txt") == []


def test_a_nested_file_links_to_its_blob(hub: HubServer, tmp_path: Path) -> None:
    folder = models.tiny_llama(tmp_path / "model")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool_use.jinja").write_text("{{ messages }}")
    nested = Published(hub, "gpt2", hub.add_repo("gpt2", folder), folder)
    snapshot = nested.fetch(tmp_path / "cache")
    nested.assert_equal(snapshot)
    assert snapshot.parent.parent.name == "models--gpt2"


def test_a_token_opens_a_gated_model(big: Published, tmp_path: Path) -> None:
    big.hub.add_repo("org/big", big.folder, gated="manual")
    big.hub.add_token("hf_granted", "org/big")
    big.assert_equal(big.fetch(tmp_path, token="hf_granted"))
    assert {r.authorization for r in big.hub.requests_for("/org/big/resolve/*")} == {"Bearer hf_granted"}


def test_offline_only_the_cache_is_used(big: Published, tmp_path: Path) -> None:
    with pytest.raises(FinalFailure, match="HF_HUB_OFFLINE is set and 6 files") as failure:
        big.fetch(tmp_path, offline=True)
    assert "Unset HF_HUB_OFFLINE" in failure.value.next_step
    big.fetch(tmp_path)
    big.hub.forget()
    big.assert_equal(big.fetch(tmp_path, offline=True))
    assert big.hub.requests == []


def test_a_stop_in_the_middle_keeps_the_bytes_and_the_next_attempt_asks_for_the_rest(
    big: Published, tmp_path: Path
) -> None:
    big.hub.faults.rate(2_000_000, f"/cdn/*{PADDING}")

    async def stop_half_way() -> int:
        transfer = big.transfer(tmp_path)
        run = asyncio.create_task(transfer.run())
        while transfer.progress()[PADDING][0] < 1_000_000:
            await asyncio.sleep(0.01)
        run.cancel()
        await asyncio.wait({run})
        return transfer.progress()[PADDING][0]

    kept = asyncio.run(stop_half_way())
    big.hub.faults.clear()
    big.hub.forget()
    transfer = big.transfer(tmp_path)
    assert transfer.progress()[PADDING] == (kept, DownloadState.QUEUED)
    big.assert_equal(asyncio.run(transfer.run()))
    size = next(file.size for file in big.wanted if file.path == PADDING)
    assert big.hub.bytes_sent(PADDING) == size - kept


def test_two_transfers_of_one_file_do_not_fetch_it_twice(big: Published, tmp_path: Path) -> None:
    big.hub.faults.rate(8_000_000, f"/cdn/*{PADDING}")

    async def both() -> list[Path]:
        return await asyncio.gather(big.transfer(tmp_path).run(), big.transfer(tmp_path).run())

    first, second = asyncio.run(both())
    assert first == second
    big.assert_equal(first)
    size = next(file.size for file in big.wanted if file.path == PADDING)
    assert big.hub.bytes_sent(PADDING) == size


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_a_file_that_is_not_the_listed_one_is_refused(path: str, hub: HubServer, tmp_path: Path) -> None:
    folder = models.tiny_llama(tmp_path / "model")
    published = Published(hub, "org/tiny", hub.add_repo("org/tiny", folder), folder)
    digest = "0" * 64 if path.endswith("safetensors") else "0" * 40
    listing = [
        replace(file, etag=digest, sha256=digest if file.sha256 else None) if file.path == path else file
        for file in published.wanted
    ]
    with pytest.raises(FinalFailure, match=f"{path} is not the file that the hub listed"):
        asyncio.run(Transfer(published.repository, listing, tmp_path / "cache", QUICK).run())
