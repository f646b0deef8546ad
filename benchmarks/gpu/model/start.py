"""From a process's start to its first token: ``python -m benchmarks.gpu.model.start FOLDER`` is such a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.gpu.model.driver import Driver, Jobs
from benchmarks.gpu.model.shape import LlamaShape
from benchmarks.gpu.results import Figure

_LIMIT = 120.0
_ROOT = Path(__file__).resolve().parents[3]


def measure(keep: Callable[[Figure], None], shape: LlamaShape | None = None) -> None:
    """Random weights in files that the system has just written, so that they are in its cache; twice, first with none
    of the kernels compiled.

    :raises subprocess.SubprocessError: the process failed or took too long.
    """
    shape = shape or LlamaShape()
    with tempfile.TemporaryDirectory() as folder:
        model = shape.write_config(Path(folder) / "model")
        size = write_weights(model, shape)
        cold, _ = _start(model, Path(folder) / "cache")
        warm, phases = _start(model, Path(folder) / "cache")
    keep(
        Figure(
            "start",
            "process start to first token, weights in the file cache",
            warm,
            values={"kernels_not_compiled_s": cold, "checkpoint_gb": size / 1e9, **phases},
            note="kernels compiled by a start before; without that, as long as is said beside",
        )
    )


def write_weights(folder: Path, shape: LlamaShape) -> int:
    """A checkpoint of normal values, a file for each layer; how many bytes."""
    query, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    matrices = {
        "self_attn.q_proj": (query, shape.hidden),
        "self_attn.k_proj": (keys, shape.hidden),
        "self_attn.v_proj": (keys, shape.hidden),
        "self_attn.o_proj": (shape.hidden, query),
        "mlp.gate_proj": (shape.intermediate, shape.hidden),
        "mlp.up_proj": (shape.intermediate, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.intermediate),
    }
    ends = {"model.embed_tokens": (shape.vocab, shape.hidden), "lm_head": (shape.vocab, shape.hidden)}
    _write(folder / "ends.safetensors", ends, ["model.norm"], shape.hidden)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        norms = [prefix + "input_layernorm", prefix + "post_attention_layernorm"]
        named = {prefix + name: size for name, size in matrices.items()}
        _write(folder / f"layer-{layer:03}.safetensors", named, norms, shape.hidden)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _write(path: Path, matrices: dict[str, tuple[int, int]], norms: list[str], hidden: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tensors = {
        f"{name}.weight": torch.empty(size, dtype=torch.bfloat16, device=device).normal_(std=0.02).cpu()
        for name, size in matrices.items()
    }
    tensors |= {f"{name}.weight": torch.ones(hidden, dtype=torch.bfloat16) for name in norms}
    save_file(tensors, path, metadata={"format": "pt"})


def _start(model: Path, cache: Path) -> tuple[float, dict[str, float]]:
    """Seconds to the first token, and what the process says of its phases."""
    argv = [sys.executable, "-m", "benchmarks.gpu.model.start", str(model)]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    started = time.time()
    process = subprocess.run(
        argv, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=_LIMIT
    )
    said = json.loads(process.stdout.splitlines()[-1])
    return said["first_token_at"] - started, said["phases"]


def main() -> None:
    """Boot, answer one request, say when its first token was there."""
    driver = Driver.boot(Path(sys.argv[1]), "auto", requests=256, batched_tokens=8192, model_length=2048)
    booted = time.time()
    run = driver.run(Jobs(1, 16, 1))
    phases = {f"{name}_s": seconds for name, seconds in driver.phases.items()}
    print(json.dumps({"first_token_at": booted + run.first_token, "phases": phases}))


if __name__ == "__main__":
    main()
