from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmmamba.ops import selective_scan
from mmmamba.ops.dispatch import TOLERANCES, Backend, select
from mmmamba.ops.scan.selective_scan import BACKENDS as SELECTIVE_SCAN
from mmmamba.ops.scan.ss2d_scan import BACKENDS as SS2D_SCAN


def backend(name: str, **fields) -> Backend:
    return Backend(name=name, run=lambda: name, dtypes=(torch.float32,), **fields)


PICKY = backend('picky', devices=('cuda',), unavailable=lambda: 'It has a cold.')
PLAIN = backend('plain')


def test_picks_the_first_without_a_reason():
    inputs = [torch.zeros(1)]
    assert select('op', [PLAIN, backend('second')], inputs, None) is PLAIN
    assert select('op', [PICKY, PLAIN], inputs, None) is PLAIN


def test_reasons_are_sentences():
    reasons = PICKY.unsupported_reasons([torch.zeros(1), torch.zeros(1, dtype=torch.float64)])
    assert reasons == [
        'It has a cold.',
        'It runs on cuda, and an input is on cpu.',
        'It does not take torch.float64.',
    ]
    assert PLAIN.unsupported_reasons([torch.zeros(1)]) == []


def test_a_named_backend_never_falls_back():
    with pytest.raises(RuntimeError, match=r'op cannot run on these inputs. picky: It has a cold. It runs on cuda'):
        select('op', [PICKY, PLAIN], [torch.zeros(1)], 'picky')
    with pytest.raises(ValueError, match="op has no backend named 'fast'; it has picky, plain."):
        select('op', [PICKY, PLAIN], [torch.zeros(1)], 'fast')


def test_says_so_when_nothing_can_run():
    with pytest.raises(RuntimeError, match='picky: .* plain: It does not take torch.float16.'):
        select('op', [PICKY, PLAIN], [torch.zeros(1, dtype=torch.float16)], None)


def test_both_ops_have_the_same_rows_but_for_what_runs():
    for one, other in zip(SELECTIVE_SCAN, SS2D_SCAN):
        assert replace(one, run=None) == replace(other, run=None)
    assert [b.name for b in SELECTIVE_SCAN] == [b.name for b in SS2D_SCAN] == [
        'cpu', 'triton', 'torch', 'reference', 'export']
    assert all(set(b.dtypes) <= TOLERANCES.keys() for b in SELECTIVE_SCAN)


def test_native_backend_refuses_float64_and_other_devices():
    inputs = [torch.zeros(1, 2, 3, dtype=torch.float64)] * 2 + [torch.zeros(2, 1)] + [torch.zeros(1, 1, 1, 3)] * 2
    with pytest.raises(RuntimeError, match='cpu: .*It does not take torch.float64.'):
        selective_scan(*inputs, backend='cpu')
    assert selective_scan(*inputs).dtype == torch.float64
    elsewhere = SELECTIVE_SCAN[0].unsupported_reasons([torch.zeros(1, device='meta')])
    assert any('an input is on meta' in reason for reason in elsewhere)
