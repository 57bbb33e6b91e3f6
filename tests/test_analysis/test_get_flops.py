"""The command line tool that prints parameters and FLOPs."""
from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from small_detector import CONFIG

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/get_flops.py'


@pytest.fixture
def tool(run_script):
    return partial(run_script, TOOL)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG)
    return path


def test_table_and_json_agree(tool, config, capsys):
    assert tool(config, '--shape', 64, 96) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ['Parameters', 'Conv+linear', 'GFLOPs', 'Scan', 'GFLOPs']
    rows = {name: values for name, *values in map(str.split, lines[1:]) if len(values) == 3}
    assert list(rows) == ['backbone', 'neck', 'bbox_head', 'total']

    assert tool(config, '--shape', 64, 96, '--json') == 0
    costs = json.loads(capsys.readouterr().out)
    assert costs.pop('shape') == [64, 96]
    for name, (parameters, linear, scan) in rows.items():
        assert int(parameters.replace(',', '')) == costs[name]['parameters']
        assert linear == f'{costs[name]["linear_flops"] / 1e9:.2f}'
        assert scan == f'{costs[name]["scan_flops"] / 1e9:.2f}'
    multiply_adds, scans = costs['total']['linear_flops'] / 2e9, costs['total']['scan_flops'] / 1e9
    assert lines[-2].endswith(f': {multiply_adds:.2f} G, {multiply_adds + scans:.2f} G with the scans')
    without = (costs['total']['linear_flops'] - costs['total']['projection_flops']) / 1e9
    assert lines[-1].endswith(f': {without:.2f}')


def test_depth_lists_modules(tool, config, capsys):
    assert tool(config, '--shape', 64, 64, '--depth', 2, '--json') == 0
    rows = json.loads(capsys.readouterr().out)
    assert {'backbone', 'backbone.stages', 'neck.top_down_blocks', 'total'} <= rows.keys()


def test_settings_and_meta_device(tool, config, capsys):
    totals = []
    for options in ([], ['--device', 'meta'], ['--cfg-options', 'model.backbone.depths=(1,1,1,3)']):
        assert tool(config, '--shape', 64, 64, '--json', *options) == 0
        totals.append(json.loads(capsys.readouterr().out)['total'])
    assert totals[0] == totals[1] and totals[0]['parameters'] < totals[2]['parameters']


@pytest.mark.parametrize('args, message', [
    (['--shape', 0, 64], '--shape must be positive'),
    (['--depth', 0], '--depth must be positive'),
    (['--device', 'nonsense'], '--device nonsense'),
])
def test_errors_are_one_line(tool, config, capsys, args, message):
    assert tool(config, *args) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'error: {message}') and error.count('\n') == 1


def test_a_config_without_a_model(tool, tmp_path, capsys):
    (tmp_path / 'empty.py').write_text('x = 1')
    assert tool(tmp_path / 'empty.py') == 2
    assert 'has no model' in capsys.readouterr().err
    assert tool(tmp_path / 'absent.py') == 2
