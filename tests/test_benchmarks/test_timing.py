from __future__ import annotations

import pytest
import torch

from benchmarks.bounds import Ceilings, bound_ms
from benchmarks.shapes import ScanShape
from benchmarks.timing import MIB, WARM_UP, Effort, Timing, exponent, interleaved, peak_memory
from mmmamba.ops import selective_scan

CPU = torch.device('cpu')


def test_percentiles():
    assert Timing.of([5, 1, 4, 2, 3, 6]) == (3.5, 2, 5)


def test_competitors_run_in_turns():
    order = []
    timings = interleaved({name: lambda name=name: order.append(name) for name in 'ab'}, CPU, Effort(0, 3, 9))
    assert ''.join(order) == 'a' * WARM_UP + 'b' * WARM_UP + 'ab' * 3
    assert list(timings) == ['a', 'b'] and all(0 <= t.p20 <= t.median <= t.p80 for t in timings.values())


def test_rounds_end_with_the_time_or_at_the_most():
    for effort, rounds in ((Effort(60, 2, 4), 4), (Effort(0, 2, 4), 2)):
        runs = []
        interleaved({'a': lambda runs=runs: runs.append(0)}, CPU, effort)
        assert len(runs) == WARM_UP + rounds


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


@pytest.mark.parametrize('power', [0.5, 1, 2])
def test_exponent(power):
    sizes = [400, 1600, 6400, 25_600]
    assert exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


def test_bound_takes_the_dearer_of_traffic_and_exponentials():
    shape = ScanShape(64, 160, 160, 2)
    tokens = 160 * 160
    traffic = 1e3 * 2 * tokens * 64 * 4 / 1e12
    exponentials = 1e3 * tokens * 4 * 64 * 16 / 1e12
    assert bound_ms(shape, 1, 4, False, Ceilings(1e12, 1e30)) == pytest.approx(traffic)
    assert bound_ms(shape, 1, 4, False, Ceilings(1e30, 1e12)) == pytest.approx(exponentials)
    assert bound_ms(shape, 3, 4, True, Ceilings(1e30, 1e12)) == pytest.approx(6 * exponentials)
