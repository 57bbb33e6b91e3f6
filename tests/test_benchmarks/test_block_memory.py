"""A backend that cannot be measured leaves the others their rows."""
from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks import block_memory
from benchmarks.contenders import contenders
from mmmamba.analysis.measure import Effort

CPU = torch.device('cpu')
GOOD = contenders()['torch']
BRIEF = Effort(0, 2, 2)


def test_a_backend_that_disagrees_has_a_failure():
    wrong = replace(GOOD, name='wrong', run=lambda *inputs: 2 * GOOD.run(*inputs))
    rows = block_memory.measure(64, (2, 3), {'wrong': wrong, 'torch': GOOD}, CPU, BRIEF)
    (failed,) = (row for row in rows if row['backend'] == 'wrong')
    assert 'relative error' in failed['failure'] and 'median_ms' not in failed
    good = [row for row in rows if row['backend'] == 'torch']
    assert [row['what'].split(',')[0] for row in good] == ['ODSS block', *['scan'] * 2, 'exponent against tokens']
    assert good[0]['of_unfused'] == 1 and all('failure' not in row for row in good)


def test_a_backend_that_fails_on_a_long_map_has_no_exponents():
    def run(x, *inputs):
        if x.shape[-1] > 3:
            raise MemoryError('no more')
        return GOOD.run(x, *inputs)

    short = replace(GOOD, name='short', run=run)
    rows = block_memory.measure_lengths((2, 3, 4, 5), {'short': short, 'torch': GOOD}, CPU, BRIEF)
    own = [(row.get('tokens'), row.get('failure')) for row in rows if row['backend'] == 'short']
    assert own == [(4, None), (9, None), (16, 'MemoryError: no more')]
    assert sum(row['backend'] == 'torch' for row in rows) == 4 + 1
