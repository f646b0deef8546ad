"""A real local host whose engines are ``tiny_engine.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control_plane.errors import Unavailable
from control_plane.providers.local import LocalProvider
from control_plane.settings import Settings
from tests.support import tiny_engine
from tests.support.processes import eventually


def make_model(folder: Path, **behaviour: object) -> Path:
    """A model folder that makes the tiny engine behave like this."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviour.json").write_text(json.dumps(behaviour))
    return folder


@contextmanager
def running_local_host(
    settings: Settings, *, drain_s: float = 5, programs: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the host of this data folder; end it, and so its replicas, at the end.

    :param programs: a folder that comes first on its PATH.
    """
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    engine = settings.run_dir / "tiny-engine"
    run_engine = f"runpy.run_path({tiny_engine.__file__!r}, run_name='__main__')"
    engine.write_text(f"#!{sys.executable}\nimport runpy\n{run_engine}\n")
    engine.chmod(0o755)
    root = Path(__file__).parents[2]
    environment = settings.child_environment() | {"PYTHONPATH": str(root), "HF_TOKEN": "hf-secret"}
    if programs is not None:
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    argv = [sys.executable, "-m", "control_plane.providers.local_host"]
    argv += ["--engine", str(engine), "--drain", str(drain_s)]
    host = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], env=environment, cwd=root)
    try:
        eventually(lambda: _answers(LocalProvider.from_settings(settings)), "the local host answers")
        yield host
    finally:
        host.terminate()
        host.wait(30)


def _answers(provider: LocalProvider) -> bool:
    try:
        provider.list_owned()
    except Unavailable:
        return False
    return True
