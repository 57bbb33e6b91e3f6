"""The table of models: what agrees with published figures, what does not and why, and the tool."""
from __future__ import annotations

import copy
import csv
import re
import runpy
from functools import partial
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from small_detector import CONFIG
from torch import nn

from mmmamba.analysis import PUBLISHED, Cost, model_name, table_row
from mmmamba.analysis.measure import environment
from mmmamba.analysis.model_table import Count, count, variants
from mmmamba.analysis.published import MMDET, THOP, cut_off_to, rounds_to

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/analysis_tools/model_table.py'
MAMBA_YOLO_T = ROOT / 'configs/mamba_yolo/mamba-yolo_t_8xb64-300e_coco.py'
MODEL = Config.fromstring(CONFIG, '.py').model

pytestmark = pytest.mark.usefixtures('mmdet_scope')


@pytest.fixture
def tool(run_script):
    return partial(run_script, TOOL)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'small.py'
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize('value, figure, rounded, cut', [
    (5.44, '5.4', True, True), (5.46, '5.4', False, True), (5.46, '5.5', True, False), (5.36, '5.4', True, False),
    (5.879924, '5.8', False, True), (20.4, '20', True, True), (20.6, '20', False, True), (21.0, '20', False, False),
    (8.886, '8.89', True, False),
])
def test_figures_are_read_to_their_last_digit(value, figure, rounded, cut):
    assert (rounds_to(value, figure), cut_off_to(value, figure)) == (rounded, cut)


def test_conventions():
    counted = Count(Cost(1, linear_flops=10_000, projection_flops=2_000, scan_flops=5_000), norm_elements=100)
    assert counted.gflops(THOP, norms=False) == pytest.approx(8_000e-9)
    assert counted.gflops(THOP, norms=True) == pytest.approx(8_800e-9)
    assert counted.gflops(MMDET, norms=False) == pytest.approx(5_000e-9)
    assert counted.gflops(MMDET, norms=True) == pytest.approx(5_200e-9)


def test_yolov8_agrees_with_the_published_figures():
    row = table_row(str(ROOT / 'configs/yolov8/yolov8_n_8xb64-300e_coco.py'), 640, 640)
    assert row.name == 'yolov8_n' and row.cost.parameters == 3_157_200
    assert row.parameters == row.flops == (True, '')
    assert row.published_flops == pytest.approx(row.cost.linear_flops / 1e9) == pytest.approx(8.743, abs=5e-4)


@pytest.mark.parametrize('name, gflops', [
    ('yolov8/yolov8-seg_n', 12.00), ('yolov8/yolov8-seg_x', 328.36), ('mamba_yolo/mamba-yolo-seg_t', 16.26),
    ('mamba_yolo/mamba-yolo-seg_l_released', 180.96)])
def test_detectors_with_masks_take_what_their_convolutions_take(name, gflops):
    model = Config.fromfile(ROOT / f'configs/{name}_8xb64-300e_coco.py').model
    assert count(model, 640, 640).cost.convention_flops / 1e9 == pytest.approx(gflops, abs=0.005)


def test_mamba_yolo_t_differs_and_a_variant_is_found():
    row = table_row(str(MAMBA_YOLO_T), 640, 640)
    assert row.cost.parameters == 5_442_612 and row.cost.scan_flops == pytest.approx(3.588e9, rel=1e-3)
    assert not row.parameters.agrees and not row.flops.agrees
    assert row.parameters.reason == ('5.443 is -6.16 % from 5.8: 5.880 of Blocks [3, 6, 6, 3] with LSBlock becomes it '
                                     'when cut off, not rounded')
    assert row.flops.reason.endswith('13.2: 13.172 with 8 FLOPs for each element of a norm rounds to it')


def test_what_nothing_explains_says_so_and_flops_are_compared_at_the_published_size_only(monkeypatch):
    published = {**PUBLISHED, 'yolov8_n': PUBLISHED['yolov8_n']._replace(parameters='7.7')}
    monkeypatch.setattr('mmmamba.analysis.model_table.PUBLISHED', published)
    row = table_row(str(ROOT / 'configs/yolov8/yolov8_n_8xb64-300e_coco.py'), 64, 64)
    assert row.parameters.reason == '3.157 is -59.00 % from 7.7: no way of counting tried here gives it'
    assert row.flops is None and row.published_flops is None


def test_names_are_those_of_configs_without_their_recipe(config):
    assert model_name(str(MAMBA_YOLO_T)) == 'mamba-yolo_t'
    assert model_name('configs/mamba_yolo/mamba-yolo_t_1xb16-30e_bccd.py') == 'mamba-yolo_t_1xb16-30e_bccd'
    assert table_row(str(config), 64, 64).published is None


def test_variants_are_those_of_odmamba_of_a_named_size():
    model = ConfigDict({**MODEL, 'backbone': dict(type='ODMamba', arch='t', depths=(1, 1, 3, 1), local_spatial=True)})
    assert {label: (v.backbone.depths, v.backbone.local_spatial) for label, v in variants(model).items()} == {
        'of Blocks [3, 6, 6, 3] without LSBlock': ((1, 2, 2, 1), False),
        'of Blocks [3, 6, 6, 3] with LSBlock': ((1, 2, 2, 1), True),
        'of Blocks [3, 3, 9, 3] without LSBlock': ((1, 1, 3, 1), False),
    }
    assert all(variant.neck.local_spatial == variant.backbone.local_spatial for variant in variants(model).values())
    assert variants(MODEL) == {} and model.backbone.depths == (1, 1, 3, 1)


def test_elements_of_all_norms():
    detector, elements = MODELS.build(copy.deepcopy(MODEL)), []
    for module in detector.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            module.register_forward_hook(lambda module, inputs, output: elements.append(output.numel()))
    detector.eval()(torch.zeros(1, 3, 64, 96), [], mode='tensor')
    assert count(MODEL, 64, 96).norm_elements == sum(elements)


def test_the_tool_writes_what_it_prints(tool, config, tmp_path, capsys):
    arguments = ['--shape', 64, 64, '--latency', '--runs', 2, '--threads', 1]
    files = ['--csv', tmp_path / 'table.csv', '--markdown', tmp_path / 'table.md']
    assert tool(config, MAMBA_YOLO_T, *arguments, *files) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / 'table.md').read_text(encoding='utf-8') == printed
    header, _, small, known = ([cell.strip() for cell in line.split('|')[1:-1]] for line in printed.splitlines()[:4])
    small, known = dict(zip(header, small)), dict(zip(header, known))
    assert small['model'] == 'small' and small['published AP'] == '–'
    assert known['published'] == '5.8 ≠' and known['published AP'] == '44.5'
    assert '- mamba-yolo_t, parameters: 5.443 is' in printed and 'not compared' in printed
    median, p20, p80 = map(float, re.fullmatch(r'(.+) \((.+) to (.+)\)', small['latency (ms)']).groups())
    assert 0 < p20 <= median <= p80
    assert (small['published ms'], known['published ms']) == ('–', '1.5')
    assert '- Published latency' in printed and 'RTX 4090' in printed

    with (tmp_path / 'table.csv').open(encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert [row['model'] for row in rows] == ['small', 'mamba-yolo_t']
    assert rows[1]['parameters'] == '5442612' and rows[1]['parameters_agree'] == 'False'
    assert [row['published_latency_ms'] for row in rows] == ['', '1.5']
    where = environment('cpu', 1)
    assert all(row.items() >= where.items() and row['latency_runs'] == '2' for row in rows)
    assert f'{float(rows[0]["latency_median_ms"]):.1f}' == f'{median:.1f}'
    assert where['device'] in printed
    assert rows[0]['parameters_agree'] == rows[0]['published_ap'] == ''
    assert small['scan GFLOPs'] == f'{int(rows[0]["scan_flops"]) / 1e9:.2f}'


@pytest.mark.parametrize('arguments, message', [
    (['--shape', 0, 64], '--shape must be positive'),
    (['--runs', 0], '--runs must be positive'),
    (['--threads', -1], '--threads must be positive'),
    (['--device', 'xpu'], '--device xpu: must be cpu, cuda or cuda:N'),
    (['--device', 'cuda:99'], '--device cuda:99: '),
    (['--csv', '/nowhere/table.csv'], '/nowhere/table.csv: there is no folder'),
])
def test_errors_are_one_line(tool, config, capsys, arguments, message):
    assert tool(config, *arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'error: {message}')


def test_files_that_are_no_configs(tool, tmp_path, capsys):
    (tmp_path / 'empty.py').write_text('x = 1')
    assert tool(tmp_path / 'empty.py') == 2
    assert 'has no model' in capsys.readouterr().err
    assert tool(ROOT / 'README.md') == 2
    assert 'README.md is no config' in capsys.readouterr().err
    (tmp_path / 'broken.py').write_text('model = dict(')
    assert tool(tmp_path / 'broken.py') == 2
    assert "is not valid Python: '(' was never closed, line 1" in capsys.readouterr().err
    assert tool(tmp_path / 'absent.py') == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith('error: ')


def test_one_that_cannot_be_counted_leaves_the_others_their_rows(tool, config, tmp_path, capsys):
    (tmp_path / 'broken.py').write_text("model = dict(type='Nothing')")
    assert tool(tmp_path / 'broken.py', config, '--shape', 64, 64) == 2
    printed = capsys.readouterr()
    assert '| small ' in printed.out and 'Traceback' not in printed.err
    for line in (printed.err.splitlines()[-1], next(line for line in printed.out.splitlines() if 'No row' in line)):
        assert str(tmp_path / 'broken.py') in line and 'unknown model: Nothing' in line

    (tmp_path / 'table.md').write_text('good')
    assert tool(tmp_path / 'broken.py', '--markdown', tmp_path / 'table.md') == 2
    assert (tmp_path / 'table.md').read_text() == 'good'


def test_the_defaults_are_configs_of_published_names():
    names = [model_name(path) for path in runpy.run_path(str(TOOL))['default_configs']()]
    assert set(names) <= set(PUBLISHED) and len(names) == len(set(names))
    assert {'mamba-yolo_t', 'mamba-yolo_l_released', 'yolov8_n'} <= set(names)
