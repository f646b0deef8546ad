"""Who has which row on the device, and what is in it."""

from __future__ import annotations

import pytest
import torch

from kernels.sampling import SamplingRows
from serving_image.engine.block_table import BlockSpan, GroupTable
from serving_image.engine.request import Request
from serving_image.runtime.gpu.request_rows import RequestRow, RequestRows
from tests.serving_image.engine.scripted_runner import make_request


def rows_for(max_num_seqs: int, device: torch.device) -> RequestRows:
    return RequestRows(max_num_seqs, max_model_len=12, max_blocks=3, vocab_size=50, device=device)


def running(name: str, prompt: list[int]) -> Request:
    request = make_request(name, prompt, 4)
    request.blocks.groups = (GroupTable(0, [0]),)
    return request


def test_a_new_request_brings_its_tokens_and_a_known_one_keeps_its_row(gpu: torch.device) -> None:
    rows = rows_for(2, gpu)
    first, second = running("a", [5, 6, 7]), running("b", [8])
    second.tokens.append(9)  # it generated a token before it was preempted
    (row,) = rows.admit([first])
    again, other = rows.admit([first, second])
    assert again is row
    assert other.index != row.index
    assert rows.tables.tokens[row.index, :3].tolist() == [5, 6, 7]
    assert rows.tables.tokens[other.index, :2].tolist() == [8, 9]
    assert rows.tables.prompt_lengths[[row.index, other.index]].tolist() == [3, 1]


def test_rows_of_ended_requests_serve_others_for_ever(gpu: torch.device) -> None:
    rows = rows_for(2, gpu)
    free = rows.num_free
    for index in range(3 * free):
        request = running(str(index), [index])
        (row,) = rows.admit([request])
        assert rows.tables.tokens[row.index, 0] == index
        rows.forget([request])
    assert rows.num_free == free
    rows.forget([running("never ran", [1])])
    assert rows.num_free == free


def test_preempted_requests_give_their_rows_up_when_others_need_them(gpu: torch.device) -> None:
    rows = rows_for(1, gpu)
    requests = [running(str(index), [index]) for index in range(rows.num_free)]
    before = rows.admit(requests)
    for request in requests[:-1]:
        request.blocks.groups = ()
    newcomer = running("new", [40])
    kept, new = rows.admit([requests[-1], newcomer])
    assert kept is before[-1]
    assert new.index != kept.index
    requests[0].tokens.append(41)
    requests[0].blocks.groups = (GroupTable(0, [1]),)
    (anew,) = rows.admit([requests[0]])
    assert anew.blocks == ()
    assert rows.tables.tokens[anew.index, :2].tolist() == [0, 41]


def test_a_request_whose_parameters_cannot_be_sent_takes_no_row(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_for(2, gpu)
    free = rows.num_free
    admit = SamplingRows.admit

    def refuse(self: SamplingRows, requests: dict) -> None:
        raise OverflowError("a parameter is out of range")

    monkeypatch.setattr(SamplingRows, "admit", refuse)
    with pytest.raises(OverflowError):
        rows.admit([running("bad", [1])])
    monkeypatch.setattr(SamplingRows, "admit", admit)
    assert rows.num_free == free
    rows.admit([running(str(index), [index]) for index in range(free)])
    assert rows.num_free == 0


NOTHING = BlockSpan(0, ())


@pytest.mark.parametrize(
    ("known", "now", "first_new"),
    [
        (NOTHING, BlockSpan(0, (4, 2)), 0),
        (BlockSpan(0, (4,)), BlockSpan(0, (4, 2)), 1),
        (BlockSpan(0, (4, 2)), BlockSpan(0, (4, 2)), 2),
        # Preempted: it found its first block again, but its second is another.
        (BlockSpan(0, (4, 2)), BlockSpan(0, (4, 3)), 0),
        (BlockSpan(0, (4, 2)), BlockSpan(0, (4,)), 0),
        # A window moves on.
        (BlockSpan(0, (4, 2)), BlockSpan(1, (2, 7)), 2),
        (BlockSpan(1, (2, 7)), BlockSpan(2, (7,)), 3),
        (BlockSpan(0, (4, 2)), BlockSpan(2, (7, 8)), 2),
        # Preempted: it begins anew, where a cached prefix ends or at its start.
        (BlockSpan(0, (4, 2)), BlockSpan(3, (7, 8)), 3),
        (BlockSpan(2, (4, 2)), BlockSpan(1, (7, 4, 2)), 1),
    ],
)
def test_only_what_is_new_of_a_block_table_is_sent(known: BlockSpan, now: BlockSpan, first_new: int) -> None:
    assert RequestRow(0, (known,)).first_new_blocks((now,)) == [first_new]
    assert RequestRow(0, ()).first_new_blocks((now,)) == [now.first]
