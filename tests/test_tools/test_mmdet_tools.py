"""``mmmamba mmdet``: MMDetection's own files run with our configs, data sets, logs and results."""
from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import cv2
import pytest


def test_browse_dataset_draws_what_training_sees(run_command, tiny_config, tmp_path, shared_coco_folder):
    pictures = tmp_path / 'pictures'
    assert run_command('mmdet', 'browse_dataset', tiny_config, '--not-show', '--output-dir', pictures) == 0
    images = {path.name for path in (shared_coco_folder / 'train').iterdir()}
    assert {path.name for path in pictures.iterdir()} <= images
    assert cv2.imread(str(next(pictures.iterdir()))).shape == (320, 320, 3)


def test_print_config_by_name_on_other_data(run_command, shared_coco_folder, capsys):
    assert run_command('mmdet', '--data', shared_coco_folder, 'print_config', 'yolov8_n') == 0
    printed = capsys.readouterr().out
    assert 'num_classes=3' in printed and str(shared_coco_folder) in printed and 'train2017' not in printed


def test_analyze_logs_reads_our_numbers(run_command, tmp_path, monkeypatch, capsys):
    log, plot = tmp_path / 'scalars.json', tmp_path / 'loss.png'
    records = [{'loss': 1.0, 'time': 0.5, 'epoch': epoch, 'iter': step, 'step': step}
               for epoch, steps in ((1, (1, 2, 3)), (2, (4, 5, 6))) for step in steps]
    log.write_text('\n'.join(map(json.dumps, [*records, {'coco/bbox_mAP': 0.5, 'time': 0.1, 'step': 2}])))
    monkeypatch.setitem(sys.modules, 'seaborn', SimpleNamespace(set_style=lambda style: None))
    assert run_command('mmdet', 'analyze_logs', 'cal_train_time', log) == 0
    assert 'average iter time: 0.5000 s/iter' in capsys.readouterr().out
    assert run_command('mmdet', 'analyze_logs', 'plot_curve', log, '--keys', 'loss', '--out', plot) == 0
    assert cv2.imread(str(plot)) is not None


def test_confusion_matrix_of_our_results(run_command, run_tool, tiny_config, tiny_checkpoint, tmp_path):
    results = tmp_path / 'results.pkl'
    assert run_tool('test', tiny_config, tiny_checkpoint, '--work-dir', tmp_path / 'test', '--out', results) == 0
    assert run_command('mmdet', 'confusion_matrix', tiny_config, results, tmp_path / 'matrix') == 0
    assert cv2.imread(str(tmp_path / 'matrix' / 'confusion_matrix.png')) is not None


@pytest.mark.parametrize(('arguments', 'message'), [
    (['browse_datset'], 'MMDetection has no tool browse_datset; did you mean browse_dataset?'),
    (['nonsense'], 'mmmamba mmdet --help lists them'),
    (['print_config', 'yolov8_n', '--data', 'none'], '--data comes before the name of the tool'),
    (['--data', 'none', 'print_config', 'yolov8_n'], 'none'),
])
def test_mistakes_are_one_line(run_command, capsys, arguments, message):
    assert run_command('mmdet', *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: ') and message in error


def test_the_tools_are_listed(run_command, capsys):
    assert run_command('mmdet', '--help') == 0
    printed = capsys.readouterr().out
    assert 'analysis_tools:' in printed and ' browse_dataset ' in printed
