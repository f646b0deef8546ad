"""The test hub against the client it imitates the server for: huggingface_hub itself, and plain HTTP for the faults."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi, RepoFile, get_hf_file_metadata, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub import HubServer, models


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return models.tiny_llama(tmp_path / "tiny", shards=2)


def read(hub: HubServer, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"{hub.url}/{path}", headers=headers, follow_redirects=True, timeout=10)


def test_huggingface_hub_reads_metadata_and_files(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    sha = hub.add_repo("org/tiny", folder)
    api = HfApi(endpoint=hub.url, token=False)

    info = api.model_info("org/tiny", files_metadata=True)
    assert (info.id, info.sha, info.gated) == ("org/tiny", sha, False)
    weights = next(s for s in info.siblings or [] if s.rfilename.endswith("1-of-00002.safetensors"))
    content = (folder / weights.rfilename).read_bytes()
    assert weights.lfs is not None
    assert (weights.size, weights.lfs.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert info.safetensors is not None
    assert info.safetensors.total == sum(t.size for t in models.llama_tensors(models.llama_config(), 0).values())
    assert info.card_data is not None
    assert info.card_data.license == "apache-2.0"

    local = Path(snapshot_download("org/tiny", endpoint=hub.url, cache_dir=tmp_path / "cache", token=False))
    for path in folder.iterdir():
        assert (local / path.name).read_bytes() == path.read_bytes()
    assert api.list_repo_refs("org/tiny").branches[0].target_commit == sha


def test_git_blob_ids_are_git_s(hub: HubServer, folder: Path) -> None:
    hub.add_repo("gpt2", folder)
    api = HfApi(endpoint=hub.url, token=False)
    oids = {file.path: file.blob_id for file in api.list_repo_tree("gpt2") if isinstance(file, RepoFile)}
    expected = subprocess.run(
        ["git", "hash-object", str(folder / "config.json")], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert oids["config.json"] == expected
    assert read(hub, "gpt2/resolve/main/config.json").headers["etag"] == f'"{expected}"'


def test_tree_lists_folders_pages_and_revisions(hub: HubServer, folder: Path) -> None:
    (folder / "original").mkdir()
    (folder / "original/params.json").write_text("{}")
    first = hub.add_repo("org/tiny", folder)
    (folder / "added.txt").write_text("x")
    second = hub.add_repo("org/tiny", folder, branch="refs/pr/1")
    hub.page_size = 2
    api = HfApi(endpoint=hub.url, token=False)

    assert first != second
    everything = {entry.path for entry in api.list_repo_tree("org/tiny", recursive=True)}
    assert everything >= {"original", "original/params.json", "config.json"}
    assert "added.txt" not in everything
    assert "original/params.json" not in {entry.path for entry in api.list_repo_tree("org/tiny")}
    assert {e.path for e in api.list_repo_tree("org/tiny", "original")} == {"original/params.json"}
    assert "added.txt" in {entry.path for entry in api.list_repo_tree("org/tiny", revision="refs/pr/1")}
    assert api.model_info("org/tiny", revision=second).sha == second
    assert [f.path for f in api.get_paths_info("org/tiny", ["config.json", "none"])] == ["config.json"]


def test_missing_things_and_gates_are_told_apart(hub: HubServer, folder: Path) -> None:
    hub.add_repo("org/tiny", folder)
    hub.add_repo("org/gated", folder, gated="manual")
    hub.add_token("hf_granted", "org/gated")
    hub.add_token("hf_other")
    anonymous = HfApi(endpoint=hub.url, token=False)

    with pytest.raises(RepositoryNotFoundError):
        anonymous.model_info("org/none")
    with pytest.raises(RevisionNotFoundError):
        anonymous.model_info("org/tiny", revision="v9")
    with pytest.raises(RemoteEntryNotFoundError):
        anonymous.hf_hub_download("org/tiny", "none.json")
    assert anonymous.model_info("org/gated").gated == "manual"
    for token, status in ((None, 401), ("hf_other", 403), ("hf_granted", 200)):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        response = read(hub, "org/gated/resolve/main/config.json", **headers)
        assert response.status_code == status
        assert response.headers.get("x-error-code") == (None if status == 200 else "GatedRepo")
    with pytest.raises(GatedRepoError):
        get_hf_file_metadata(f"{hub.url}/org/gated/resolve/main/config.json")
    assert read(hub, "api/models/org/tiny", Authorization="Bearer hf_unknown").status_code == 401


def test_ranges_links_and_counting(hub: HubServer, folder: Path) -> None:
    name = "model-00001-of-00002.safetensors"
    content = (folder / name).read_bytes()
    sha = hub.add_repo("org/tiny", folder)
    path = f"org/tiny/resolve/main/{name}"

    head = httpx.head(f"{hub.url}/{path}")
    assert head.status_code == 302
    assert head.headers["location"].startswith(f"{hub.url}/cdn/")
    assert (head.headers["x-linked-size"], head.headers["x-repo-commit"]) == (str(len(content)), sha)
    hub.forget()
    part = read(hub, path, Range="bytes=10-19")
    assert (part.status_code, part.content) == (206, content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert read(hub, path, Range="bytes=-5").content == content[-5:]
    assert read(hub, path, Range=f"bytes={len(content)}-").status_code == 416
    changed = read(hub, path, Range="bytes=0-9", **{"If-Range": '"other"'})
    assert (changed.status_code, len(changed.content)) == (200, len(content))
    assert hub.bytes_sent(name) == 10 + 5 + len(content)
    hub.cdn_host = "localhost"
    assert httpx.head(f"{hub.url}/{path}").headers["location"].startswith("http://localhost:")
    hub.expire_links()
    assert httpx.get(head.headers["location"]).status_code == 403
    assert read(hub, path).content == content


def test_faults(hub: HubServer, folder: Path) -> None:
    name = "model-00001-of-00002.safetensors"
    content = (folder / name).read_bytes()
    hub.add_repo("org/tiny", folder)
    path = f"org/tiny/resolve/main/{name}"

    hub.faults.truncate(1000, "/cdn/*")
    with pytest.raises(httpx.RemoteProtocolError):
        read(hub, path)
    assert hub.bytes_sent(name) == 1000
    hub.faults.error(503, f"/{path}", times=2)
    assert [read(hub, path).status_code for _ in range(3)] == [503, 503, 200]
    hub.faults.corrupt("/cdn/*", times=1)
    spoiled = read(hub, path).content
    assert len(spoiled) == len(content)
    assert spoiled != content
    assert read(hub, path).content == content
    hub.faults.redirect("http://127.0.0.2:9/elsewhere", "*/config.json", times=1)
    assert httpx.get(f"{hub.url}/org/tiny/resolve/main/config.json").headers["location"].startswith("http://127.0.0.2")
    for after in (0, 100):
        hub.faults.hang("/cdn/*", after=after, times=1)
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{hub.url}/{path}", follow_redirects=True, timeout=0.2)
    with hub.dead(), pytest.raises(httpx.ConnectError):
        read(hub, path)
    assert read(hub, path).content == content


def test_a_rate_limit_slows_the_body_and_can_be_lifted(hub: HubServer, folder: Path) -> None:
    name = "model-00001-of-00002.safetensors"
    size = (folder / name).stat().st_size
    hub.add_repo("org/tiny", folder)
    hub.faults.rate(2000, "/cdn/*")
    url = f"{hub.url}/org/tiny/resolve/main/{name}"
    with httpx.stream("GET", url, follow_redirects=True, timeout=10) as response:
        hub.wait_until(lambda: hub.bytes_sent(name) >= 200)
        assert hub.bytes_sent(name) < size
        hub.faults.clear()
        assert len(response.read()) == size


def test_the_command_publishes_folders(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub", "--port", "0", f"org/mine={folder}"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        url = next(line.strip().partition("=")[2] for line in lines if line.startswith("export HF_ENDPOINT="))
        assert HfApi(endpoint=url, token=False).model_info("org/mine").id == "org/mine"
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0
        assert process.stdout is not None
        process.stdout.close()


def test_the_tiny_llama_is_what_transformers_expects(tmp_path: Path) -> None:
    from safetensors import safe_open
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = models.tiny_llama(tmp_path / "tiny")
    expected = LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).state_dict()
    with safe_open(folder / "model.safetensors", "np") as weights:
        assert {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()} == {  # noqa: SIM118
            name: tuple(tensor.shape) for name, tensor in expected.items()
        }
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("ships are built")["input_ids"]) == "ships are built"
    assert "<|user|>" in tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
