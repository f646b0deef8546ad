"""What is compiled at boot is what requests need: later, a compiler in the middle of a step would hold everybody up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.serving_image.checkpoints import write_checkpoint


def test_nothing_is_compiled_while_requests_wait(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", max_position_embeddings=1024, vocab_size=40_000)
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    argv = [sys.executable, "-m", "tests.serving_image.runtime.gpu.compiled_workload", str(model)]
    ended = subprocess.run(argv, env=env, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["launched_ahead"] == 0
    assert len(found["ahead"]) > 20
    assert found["later"] == []
