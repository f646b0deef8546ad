"""When a graph is captured, what size it has, and what happens where none can be."""

from __future__ import annotations

import logging

import pytest
import torch

from serving_image.runtime.gpu import decode_graphs
from serving_image.runtime.gpu.decode_graphs import DecodeGraphs, GraphKey

CPU = torch.device("cpu")


class Model:
    """Doubles what is in its inputs, and counts how often."""

    def __init__(self, device: torch.device = CPU) -> None:
        self.inputs = torch.zeros(64, 2, device=device)
        self.computed: list[GraphKey] = []

    def forward(self, key: GraphKey) -> torch.Tensor:
        self.computed.append(key)
        return self.inputs[: key.rows] * 2


def test_sizes_waste_a_third_at_most_and_end_with_the_largest_batch() -> None:
    sizes = DecodeGraphs(Model().forward, 200, CPU).sizes
    assert sizes == [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 200]
    assert DecodeGraphs(Model().forward, 1, CPU).sizes == [1]
    for most in (1, 2, 3, 5, 63, 64, 65, 256):
        graphs = DecodeGraphs(Model().forward, most, CPU)
        for rows in range(1, most + 1):
            assert rows <= graphs.size_for(rows) <= most
            assert graphs.size_for(rows) < 2 * rows


def test_a_graph_is_captured_when_its_key_recurs_and_there_is_time() -> None:
    model = Model()
    graphs = DecodeGraphs(model.forward, 8, CPU)
    small, split = GraphKey(2, 1), GraphKey(2, 4)

    def run(key: GraphKey, value: float, *, may_capture: bool = True) -> int:
        model.inputs.fill_(value)
        assert torch.equal(graphs.run(key, may_capture=may_capture), torch.full((key.rows, 2), 2 * value))
        return graphs.num_captured

    assert run(small, 1, may_capture=False) == 0
    assert run(small, 1, may_capture=False) == 0
    assert run(small, 2) == 0
    assert run(small, 2, may_capture=False) == 0
    assert run(small, 3) == 1
    assert run(split, 4) == 1  # as many rows, but on the other side of the split threshold
    assert run(split, 5) == 2
    assert run(small, 6) == 2


def test_a_capture_that_fails_is_logged_once_and_decoding_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(decode_graphs, "RecordedCall", fail)
    model = Model()
    graphs = DecodeGraphs(model.forward, 8, CPU)
    with caplog.at_level(logging.ERROR):
        for rows in (1, 1, 2, 2, 1, 2):
            assert torch.equal(graphs.run(GraphKey(rows, 1), may_capture=True), torch.zeros(rows, 2))
    assert len(caplog.records) == 1
    assert len(model.computed) == 6
    assert graphs.num_captured == 0


def test_a_lost_device_is_not_taken_for_a_failed_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(_: object) -> None:
        raise torch.AcceleratorError("an illegal memory access was encountered")

    monkeypatch.setattr(decode_graphs, "RecordedCall", lose)
    graphs = DecodeGraphs(Model().forward, 8, CPU)
    graphs.run(GraphKey(1, 1), may_capture=True)
    with pytest.raises(torch.AcceleratorError):
        graphs.run(GraphKey(1, 1), may_capture=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_graphs_compute_what_is_in_their_inputs_now() -> None:
    """Two graphs in one pool, replayed in turn."""
    model = Model(torch.device("cuda"))
    graphs = DecodeGraphs(model.forward, 8, torch.device("cuda"))
    for value in range(1, 6):
        for rows in (2, 8):
            model.inputs.fill_(value)
            assert torch.equal(
                graphs.run(GraphKey(rows, 1), may_capture=True).cpu(), torch.full((rows, 2), 2.0 * value)
            )
    assert graphs.num_captured == 2
    # Once as they are and once to capture them; replays do not come here.
    assert len(model.computed) == 4
