"""Models from the hub, and what a folder's JSON files mean."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving_image.errors import StartupError
from serving_image.server.model_folder import read_generation_defaults
from tests.hub.models import tiny_llama


class TestGenerationDefaults:
    def write(self, folder, generation=None, config=None):
        (folder / "config.json").write_text(json.dumps(config or {}))
        if generation is not None:
            (folder / "generation_config.json").write_text(json.dumps(generation))
        return read_generation_defaults(folder)

    @pytest.mark.parametrize(("eos", "ids"), [(7, {7}), ([7, 9], {7, 9}), (None, set())])
    def test_end_tokens_are_one_or_several_or_none(self, tmp_path, eos, ids):
        assert self.write(tmp_path, {"eos_token_id": eos}).eos_token_ids == ids

    def test_without_generation_config_those_of_config_count(self, tmp_path):
        assert self.write(tmp_path, None, {"eos_token_id": [3]}).eos_token_ids == {3}

    def test_recommended_sampling(self, tmp_path):
        recommended = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1}
        defaults = self.write(tmp_path, recommended)
        assert (defaults.temperature, defaults.top_p, defaults.top_k) == (0.6, 0.9, 20)
        assert (defaults.min_p, defaults.repetition_penalty) == (0.05, 1.1)
        assert (self.write(tmp_path, {}).temperature, self.write(tmp_path, {}).top_k) == (1.0, 0)

    @pytest.mark.parametrize("generation", [{"eos_token_id": "end"}, {"temperature": "hot"}, {"top_k": [1]}])
    def test_impossible_values_are_told(self, tmp_path, generation):
        with pytest.raises(StartupError, match=r"generation_config\.json"):
            self.write(tmp_path, generation)


class TestHub:
    """huggingface_hub reads its environment when it is imported, so each look is a process of its own."""

    def resolve(self, hub, tmp_path, model: str, **env: str) -> subprocess.CompletedProcess[str]:
        script = (
            "import sys\n"
            "from serving_image.errors import StartupError\n"
            "from serving_image.server.model_folder import resolve_model\n"
            "try: print(resolve_model(sys.argv[1], None, 'auto'))\n"
            "except StartupError as error: sys.exit(str(error))\n"
        )
        environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")} | env
        argv = [sys.executable, "-c", script, model]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment)

    def test_weights_and_small_files_are_fetched_and_nothing_that_could_be_executed(self, hub, tmp_path):
        folder = tiny_llama(tmp_path / "model")
        (folder / "modeling_evil.py").write_text("raise SystemExit")
        (folder / "pytorch_model.bin").write_bytes(b"pickle")
        (folder / "consolidated.safetensors").write_bytes(b"twice")
        hub.add_repo("org/llama", folder)
        ended = self.resolve(hub, tmp_path, "org/llama")
        assert ended.returncode == 0, ended.stderr
        fetched = {path.name for path in Path(ended.stdout.strip()).iterdir()}
        expected = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
        assert fetched == expected | {"model.safetensors"}

    def test_weights_in_pytorchs_format_are_fetched_where_there_are_no_others(self, hub, tmp_path):
        folder = tiny_llama(tmp_path / "model")
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        (folder / "training_args.bin").write_bytes(b"pickle")
        for name in ("qwen.tiktoken", "merges.txt", "tokenizer.model", "README.txt"):
            (folder / name).write_text(name)
        hub.add_repo("org/llama", folder)
        ended = self.resolve(hub, tmp_path, "org/llama")
        assert ended.returncode == 0, ended.stderr
        fetched = {path.name for path in Path(ended.stdout.strip()).iterdir()}
        expected = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
        assert fetched == expected | {"pytorch_model.bin", "qwen.tiktoken", "merges.txt", "tokenizer.model"}

    def test_a_fetched_model_needs_no_hub(self, hub, tmp_path):
        hub.add_repo("org/llama", tiny_llama(tmp_path / "model"))
        self.resolve(hub, tmp_path, "org/llama")
        hub.forget()
        ended = self.resolve(hub, tmp_path, "org/llama", HF_HUB_OFFLINE="1")
        assert (Path(ended.stdout.strip()) / "model.safetensors").is_file()
        assert hub.requests == []

    def test_what_is_not_served_is_refused_before_weights_are_fetched(self, hub, tmp_path):
        folder = tiny_llama(tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"architectures": ["MambaForCausalLM"]}))
        hub.add_repo("org/mamba", folder)
        ended = self.resolve(hub, tmp_path, "org/mamba")
        assert "MambaForCausalLM is not supported: it is a state-space or recurrent model" in ended.stderr
        assert hub.requests_for("*config.json")
        assert hub.requests_for("*safetensors") == []

    def test_a_gated_model(self, hub, tmp_path):
        hub.add_repo("org/gated", tiny_llama(tmp_path / "model"), gated="manual")
        hub.add_token("hf_good", "org/gated")
        assert "gated" in self.resolve(hub, tmp_path, "org/gated").stderr
        assert self.resolve(hub, tmp_path, "org/gated", HF_TOKEN="hf_good").returncode == 0

    def test_models_that_cannot_be_had(self, hub, tmp_path):
        assert "The hub has no model org/none" in self.resolve(hub, tmp_path, "org/none").stderr
        with hub.dead():
            ended = self.resolve(hub, tmp_path, "org/none", HF_HUB_DOWNLOAD_TIMEOUT="2", HF_HUB_ETAG_TIMEOUT="2")
        assert ended.returncode == 1
        assert "cannot be fetched" in ended.stderr
        assert "Traceback" not in ended.stderr
