"""The command line: what is refused, and how it is said."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving_image.cli import UNSERVED_OPTIONS, main, parse_options
from tests.hub.models import tiny_llama


def refusal(capsys, *argv: str) -> str:
    """The one line of a command that must be refused."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


class TestOptions:
    def test_defaults(self):
        options = parse_options(["some/model"])
        assert options.server.served_model_name == "some/model"
        assert (options.server.host, options.server.port, options.server.api_key_digests) == ("127.0.0.1", 8000, ())
        assert options.engine.max_model_len is None
        assert options.engine.kv_cache_memory is None
        assert (options.engine.enable_prefix_caching, options.engine.batch_invariant) == (True, False)
        assert options.engine.quantization == "auto"

    def test_prefix_caching_may_be_asked_for(self):
        assert parse_options(["m", "--enable-prefix-caching"]).engine.enable_prefix_caching

    def test_every_option_arrives(self, tmp_path):
        keys, template = tmp_path / "keys", tmp_path / "template"
        keys.write_text("k1\n\n k2 \n")
        template.write_text("{{ messages }}")
        line = (
            "some/model --host ::1 --port 0 --served-model-name m --revision r --device cpu --dtype float32 "
            "--quantization int8-dynamic --batch-invariant --no-enable-prefix-caching "
            "--max-model-len 99 --max-num-seqs 3 --max-num-batched-tokens 77 "
            "--kv-cache-memory 1000000 --kv-cache-dtype fp8 --block-size 16 --load-format dummy --model-impl native "
            "--seed 5 --threads 2 "
            f"--log-format json --chat-template {template} --api-key-file {keys}"
        )
        server, engine = parse_options(line.split())
        assert (server.host, server.port, server.served_model_name, server.revision) == ("::1", 0, "m", "r")
        assert (server.chat_template, server.log_format) == ("{{ messages }}", "json")
        assert server.api_key_digests == tuple(hashlib.sha256(key).digest() for key in (b"k1", b"k2"))
        assert (engine.device, engine.dtype, engine.load_format) == ("cpu", "float32", "dummy")
        assert (engine.quantization, engine.batch_invariant, engine.enable_prefix_caching) == (
            "int8-dynamic",
            True,
            False,
        )
        assert (engine.max_model_len, engine.max_num_seqs, engine.max_num_batched_tokens) == (99, 3, 77)
        assert (engine.kv_cache_memory, engine.kv_cache_dtype) == (1_000_000, "fp8")
        assert (engine.block_size, engine.seed, engine.threads) == (16, 5, 2)

    def test_a_chat_template_may_be_a_bundled_one_or_a_file(self, tmp_path, monkeypatch):
        assert "<|im_start|>" in parse_options(["m", "--chat-template", "qwen"]).server.chat_template
        monkeypatch.chdir(tmp_path)
        for name in ("qwen", "mine"):
            (tmp_path / name).write_text("{{ messages }}")
        assert "<|im_start|>" in parse_options(["m", "--chat-template", "qwen"]).server.chat_template
        for path in ("./qwen", "mine"):
            assert parse_options(["m", "--chat-template", path]).server.chat_template == "{{ messages }}"

    def test_max_model_len_may_be_auto(self):
        assert parse_options(["m", "--max-model-len", "auto"]).engine.max_model_len is None


class TestRefusals:
    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            ([], "MODEL"),
            (["m", "--nonsense"], "--nonsense"),
            (["m", "--max-model", "5"], "--max-model"),
            (["m", "--port", "eighty"], "'eighty' is not a whole number"),
            (["m", "--port", "70000"], "0 to 65535"),
            (["m", "--max-num-seqs", "0"], "1 or more"),
            (["m", "--max-model-len", "long"], "--max-model-len"),
            (["m", "--dtype", "int3"], "--dtype"),
            (["m", "--kv-cache-dtype", "int3"], "--kv-cache-dtype"),
            (["m", "--quantization", "awq"], "--quantization awq is not served by this version"),
            (["m", "--quantization", "magic"], "--quantization"),
            (["m", "--model-impl", "transformers"], "--model-impl transformers is not served by this version"),
            (["m", "--chat-template", "/nowhere/t"], "/nowhere/t cannot be read: No such file"),
            (["m", "--chat-template", "lama-2"], "neither a file nor a bundled template. The bundled ones are aquila,"),
            (["m", "--api-key-file", "/nowhere/k"], "/nowhere/k cannot be read: No such file"),
            (["/nowhere/at/all", "--port", "0"], "There is no folder /nowhere/at/all"),
            (["bad id!", "--port", "0"], "There is no folder bad id!"),
            (["m", "--host", "no.such.host.invalid"], "no such address"),
        ],
    )
    def test_a_mistake_is_one_line_and_exit_2(self, capsys, argv, said):
        line = refusal(capsys, *argv)
        assert line.startswith("slipway-serve: error: ")
        assert said in line

    @pytest.mark.parametrize("option", UNSERVED_OPTIONS)
    def test_options_of_the_contract_that_are_not_served_yet_are_refused_by_name(self, capsys, option):
        assert f"{option} is not served by this version" in refusal(capsys, "m", option)
        assert f"{option} is not served by this version" in refusal(capsys, "m", f"{option}=1")

    def test_an_empty_key_file_does_not_open_the_server(self, capsys, tmp_path):
        (tmp_path / "keys").write_text("\n  \n")
        assert "holds no key" in refusal(capsys, "m", "--api-key-file", str(tmp_path / "keys"))

    def test_a_port_that_is_taken(self, capsys):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert f"127.0.0.1:{port}: Address already in use" in refusal(capsys, "m", "--port", str(port))

    @pytest.mark.parametrize(
        ("missing", "said"),
        [
            ("config.json", "no config.json"),
            ("tokenizer.json", "holds no tokenizer: none of tokenizer.json, tokenizer.model"),
            ("model.safetensors", "safetensors"),
        ],
    )
    def test_a_folder_that_is_no_model(self, capsys, tmp_path, missing, said):
        folder = tiny_llama(tmp_path / "llama")
        (folder / missing).unlink()
        assert said in refusal(capsys, str(folder), "--port", "0")

    def test_a_file_is_no_folder(self, capsys, tmp_path):
        (tmp_path / "model.safetensors").touch()
        assert "is a file" in refusal(capsys, str(tmp_path / "model.safetensors"), "--port", "0")


class TestRealProcess:
    """The refusals that come from the engine process, or after it was spawned."""

    def serve(self, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "serving_image.cli", str(folder), "--port", "0", *options]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)

    def check(self, ended: subprocess.CompletedProcess[str], said: str) -> None:
        assert ended.returncode == 2, ended.stderr
        last = ended.stderr.splitlines()[-1]
        assert last.startswith("slipway-serve: error: ")
        assert said in last
        assert "Traceback" not in ended.stderr

    def test_an_unsupported_architecture(self, tmp_path):
        folder = tiny_llama(tmp_path / "m", architectures=["RwkvForCausalLM"], model_type="rwkv")
        self.check(self.serve(folder), "RwkvForCausalLM")

    def test_a_context_that_does_not_fit(self, tmp_path):
        folder = tiny_llama(tmp_path / "m")
        self.check(self.serve(folder, "--kv-cache-memory", "100000", "--max-model-len", "512"), "max-model-len")

    @pytest.mark.parametrize(("name", "text"), [("tokenizer.json", "{}"), ("tokenizer_config.json", "[1, 2")])
    def test_a_broken_small_file(self, tmp_path, name, text):
        folder = tiny_llama(tmp_path / "m")
        (folder / name).write_text(text)
        self.check(self.serve(folder), name)

    def test_a_broken_chat_template(self, tmp_path):
        folder = tiny_llama(tmp_path / "m")
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "{% for %}"}))
        self.check(self.serve(folder), "chat template")


def test_the_server_process_loads_no_tensor_library():
    """Its start overlaps the engine's import of torch; loading that itself would double the time to the first token."""
    heavy = ["torch", "transformers", "numpy", "huggingface_hub"]
    code = f"import serving_image.server.lifecycle, sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
