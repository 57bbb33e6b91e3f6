from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch

from benchmarks import plot, scan
from benchmarks.contenders import (
    CROP,
    able,
    as_scan,
    contenders,
    gate,
    incoming_gradient,
    is_unfused,
    scan_inputs,
)
from benchmarks.shapes import ScanShape, scans_of
from mmmamba.analysis.measure import Effort
from mmmamba.ops.dispatch import TOLERANCES

CPU = torch.device('cpu')
SMALL = ScanShape(8, 6, 5, 2, 4)
BRIEF = Effort(0, 2, 2)


def wrong(backend, change):
    """The backend with its output changed."""
    return replace(backend, name='wrong', run=lambda *inputs: change(backend.run(*inputs)))


def test_every_selective_scan_is_there_fused_or_unfused():
    known = contenders()
    assert {'cpu', 'torch', 'reference', 'mamba_ssm', 'unfused_cpu'} <= known.keys()
    assert not is_unfused(known['cpu'])
    assert all(is_unfused(known[name]) for name in ('torch', 'reference', 'mamba_ssm', 'unfused_cpu'))


def test_backends_that_cannot_run_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="no backend is called 'fast'; there are .*unfused_cpu"):
        able(CPU, ['fast'])
    with pytest.raises(ValueError, match='mamba_ssm cannot run: .*It runs on cuda, and an input is on cpu'):
        able(CPU, ['mamba_ssm'])
    assert 'reference' not in able(CPU) and list(able(CPU, ['reference'])) == ['reference']


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_gate_lets_only_correct_backends_pass(dtype):
    good = contenders()['torch']
    limit = TOLERANCES[dtype]
    assert 0 < gate(good, SMALL, CPU, dtype) <= max(limit.forward, limit.gradient)
    with pytest.raises(AssertionError, match='wrong: y has a relative error'):
        gate(wrong(good, lambda y: y * (1 + 4 * limit.forward)), SMALL, CPU, dtype)
    with pytest.raises(AssertionError, match='wrong: grad_x has a relative error'):
        gate(wrong(good, lambda y: y.detach() + (y - y.detach()) * (1 + 4 * limit.gradient)), SMALL, CPU, dtype)
    with pytest.raises(AssertionError, match='nan'):
        gate(wrong(good, lambda y: y * float('nan')), SMALL, CPU, dtype)


def test_unfused_path_returns_what_the_op_does():
    inputs = [torch.rand(shape).bfloat16() for shape in ((1, 8, 6, 5), (4, 10, 8), (4, 8, 2), (4, 8), (32, 4), (32,))]
    y = as_scan(contenders()['unfused_cpu'])(*inputs)
    assert y.dtype == torch.bfloat16 and y.is_contiguous(memory_format=torch.channels_last)


def test_rows_of_a_shape():
    backends = {name: contenders()[name] for name in ('torch', 'reference')}
    backends['wrong'] = wrong(backends['torch'], lambda y: 2 * y)
    rows = scan.measure_shape(SMALL, backends, CPU, 'fp32', 1, BRIEF, None)
    found = [(row['backend'], row.get('pass')) for row in rows]
    assert found == [('wrong', None), *((name, kind) for kind in scan.PASSES for name in ('torch', 'reference'))]
    assert 'relative error' in rows[0]['failure'] and 'median_ms' not in rows[0]
    assert all(row['median_ms'] > 0 and row['peak_mib'] > 0 and row['height'] == 6 for row in rows[1:])


def test_totals_count_every_scan_of_the_model():
    way = {'backend': 'cpu', 'unfused': False, 'pass': 'forward', 'mode': 'eager', 'dtype': 'fp32', 'batch': 1}
    counts = scans_of('t', 640)
    rows = [{**way, **shape._asdict(), 'median_ms': 1.0, 'p20_ms': 0.5, 'p80_ms': 2.0} for shape in counts]
    elsewhere = {**rows[0], 'height': 1}
    (total,) = scan.totals([*rows, elsewhere], 't', 640)
    assert (total['median_ms'], total['p20_ms'], total['p80_ms']) == (10, 5, 20) and 'bound_ms' not in total
    assert scan.totals(rows[1:], 't', 640) == []
    assert scan.totals([{**rows[0], 'failure': 'it broke'}, *rows[1:]], 't', 640) == []


def test_ratios_are_to_the_best_unfused_path_of_the_same_scan():
    same = {'pass': 'forward', 'mode': 'graph', 'dtype': 'fp32', 'batch': 1, **SMALL._asdict(), 'bound_ms': 0.5}
    rows = [{'backend': name, 'unfused': unfused, 'median_ms': ms, **same}
            for name, unfused, ms in (('triton', False, 1.0), ('torch', True, 30.0), ('mamba_ssm', True, 3.0))]
    rows.append({**rows[0], 'dtype': 'fp16'})
    scan.add_ratios([*rows, {'backend': 'cpu', 'unfused': False, 'failure': 'it broke'}])
    assert [row.get('unfused_over_this') for row in rows] == [3, 0.1, 1, None]
    assert [row['this_over_bound'] for row in rows] == [2, 60, 6, 2]


def test_writes_rows_and_picture(tmp_path):
    rows, picture = tmp_path / 'new' / 'scan.csv', tmp_path / 'scan.png'
    with pytest.raises(SystemExit) as end:
        scan.main(['--sides', '32', '--backends', 'torch', '--seconds', '0', '--csv', str(rows),
                   '--plot', str(picture)])
    assert end.value.code == 0 and picture.read_bytes().startswith(b'\x89PNG')
    with rows.open() as file:
        table = list(csv.DictReader(file))
    assert [row['scans'] for row in table[-2:]] == ['all of mamba-yolo_t at 32'] * 2
    assert all(row['torch'] == torch.__version__ and row['device'] for row in table)
    picture.unlink()
    plot.main([str(rows), str(picture)])
    assert picture.exists()


@pytest.mark.parametrize('arguments, message', [
    (['--sides', '33'], 'multiple of 32'),
    (['--backends', 'fast'], "no backend is called 'fast'"),
    (['--device', 'tpu'], 'must be cpu or cuda'),
])
def test_mistakes_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        scan.main(arguments)
    assert message in capsys.readouterr().err


def test_gradients_are_laid_out_as_the_map_and_of_the_same_values():
    x = scan_inputs(SMALL, 2, CPU, torch.float32)['x']
    gradient = incoming_gradient(x)
    assert gradient.stride() == x.stride() and not x.is_contiguous()
    assert torch.equal(gradient, incoming_gradient(x.contiguous()))


def test_a_backend_that_fails_at_full_size_has_a_failure_and_the_others_times():
    def run(x, *inputs):
        if x.shape[-1] > CROP:
            raise MemoryError('no more')
        return good.run(x, *inputs)

    good = contenders()['torch']
    backends = {'large': replace(good, name='large', run=run), 'torch': good}
    rows = scan.measure_shape(SMALL._replace(width=CROP + 1), backends, CPU, 'fp32', 1, BRIEF, None)
    found = [(row['backend'], row['pass'], row.get('failure')) for row in rows]
    ends = ('large', 'MemoryError: no more'), ('torch', None)
    assert found == [(name, kind, why) for kind in scan.PASSES for name, why in ends]


def test_a_scan_that_fails_as_a_whole_leaves_the_others_their_rows(monkeypatch):
    def inputs(shape, *options):
        if shape.height == 8:
            raise MemoryError('no more')
        return scan_inputs(shape._replace(channels=8), *options)

    monkeypatch.setattr(scan, 'scan_inputs', inputs)
    rows = scan.measure_models(['t'], [64], {'torch': contenders()['torch']}, CPU, ['fp32'], 1, BRIEF, None)
    assert [row['height'] for row in rows if 'failure' in row] == [8]
    assert [row['height'] for row in rows if 'failure' not in row] == [16, 16, 4, 4, 2, 2]
