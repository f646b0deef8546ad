"""Run as a program: load the models of some folders and print, for each, how much memory that took at its peak.

A line for each: the bytes by which anonymous memory grew at most, and the bytes of the weights in the model. Pages of
mapped files are not counted: the kernel takes them back when it needs them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from kernels.linear import EXACT
from serving_image.models.loading import LoadSettings, load_model
from serving_image.models.registry import ModelFolder

_SECONDS_BETWEEN_SAMPLES = 0.0005


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


class Peak:
    """The most that was sampled."""

    bytes = 0


@contextmanager
def sampled_peak() -> Iterator[Peak]:
    """Sample in a thread; PyTorch lets it run during copies."""
    peak, ended = Peak(), threading.Event()

    def sample() -> None:
        while not ended.wait(_SECONDS_BETWEEN_SAMPLES):
            peak.bytes = max(peak.bytes, anonymous_bytes())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def measure(path: Path) -> None:
    """Load one model and print."""
    settings = LoadSettings(
        device=torch.device("cpu"), layout=EXACT, choose_dtype=lambda stored: stored, load_format="auto", seed=0
    )
    folder = ModelFolder.open(path)
    before = anonymous_bytes()
    with sampled_peak() as peak:
        model = load_model(folder, settings)
    print(peak.bytes - before, model.weight_bytes, flush=True)


def main() -> None:
    """The folders are the arguments. Each is loaded by a process of its own, in whose memory nothing was before."""
    torch.set_num_threads(1)
    for path in sys.argv[1:]:
        child = os.fork()
        if child == 0:
            measure(Path(path))
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
