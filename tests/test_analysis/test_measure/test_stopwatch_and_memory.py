from __future__ import annotations

import torch

from mmmamba.analysis.measure import MIB, WARM_UP, Effort, Timing, interleaved, peak_memory
from mmmamba.ops import selective_scan

CPU = torch.device('cpu')


def test_percentiles():
    assert Timing.of([5, 1, 4, 2, 3, 6]) == (3.5, 2, 5)
    assert Timing.of([7]) == (7, 7, 7)
    assert Timing(1.23456, 1, 2).columns() == {'median_ms': 1.2346, 'p20_ms': 1, 'p80_ms': 2}


def test_competitors_run_in_turns():
    order = []
    timings = interleaved({name: lambda name=name: order.append(name) for name in 'ab'}, CPU, Effort(0, 3, 9))
    assert ''.join(order) == 'a' * WARM_UP + 'b' * WARM_UP + 'ab' * 3
    assert list(timings) == ['a', 'b'] and all(0 <= t.p20 <= t.median <= t.p80 for t in timings.values())


def test_rounds_end_with_the_time_or_at_the_most():
    for effort, rounds in ((Effort(60, 2, 4), 4), (Effort(0, 2, 4), 2), (Effort.rounds(3), 3)):
        for warm_up in (0, WARM_UP):
            runs = []
            interleaved({'a': lambda runs=runs: runs.append(0)}, CPU, effort, warm_up=warm_up)
            assert len(runs) == warm_up + rounds


def test_peak_memory_is_what_stands_at_once():
    def run():
        first = torch.empty(MIB, dtype=torch.uint8)
        del first
        second = torch.empty(3 * MIB, dtype=torch.uint8)
        third = torch.empty(2 * MIB, dtype=torch.uint8)
        del second
        return torch.empty(MIB, dtype=torch.uint8), third

    assert [peak_memory(run, CPU) for _ in range(3)] == [5 * MIB] * 3


def test_peak_memory_sees_inside_of_operators():
    """The torch backend keeps every state for the backward pass, the reference hands none out."""
    inputs = [torch.rand(shape, requires_grad=True) for shape in
              ((1, 8, 256), (1, 8, 256), (8, 16), (1, 1, 16, 256), (1, 1, 16, 256))]

    def run():
        selective_scan(*inputs, backend='torch').sum().backward()

    states = 8 * 16 * 256 * 4
    assert states < peak_memory(run, CPU) < 20 * states
