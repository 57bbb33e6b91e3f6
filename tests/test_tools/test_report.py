"""tools/test.py --report: the page of a test; and mmdet's own file of results."""
from __future__ import annotations

import json
import pickle

import pytest


def test_report_of_a_detector(tiny_config, tiny_checkpoint, run_tool, tmp_path, capsys):
    report, dump = tmp_path / 'report', tmp_path / 'results.pkl'
    assert run_tool('test', tiny_config, tiny_checkpoint, '--work-dir', tmp_path / 'test', '--out', dump, '--report',
                    report, '--no-pictures') == 0
    assert str(report / 'report.html') in capsys.readouterr().out
    text = (report / 'report.html').read_text(encoding='utf-8')
    assert 'data:image' not in text and 'on val' in text and '1 epochs, 4 iterations' in text
    assert 'SingleStageDetector, ODMamba, ODSSPAFPN, YOLOv8Head' in text
    numbers = json.loads((report / 'report.json').read_text())
    detections = json.loads((report / 'detections.bbox.json').read_text())
    assert numbers['metrics']['coco/bbox_mAP'] >= 0 and detections
    assert [row['class'] for row in numbers['classes']] == ['square', 'wide', 'tall']
    assert len(pickle.loads(dump.read_bytes())) == 4


def test_the_reports_call_has_the_config_that_training_left(tiny_config, tiny_checkpoint, shared_coco_folder, run_tool,
                                                            tmp_path):
    elsewhere = tmp_path / 'named' / tiny_config.name  # for other data, say
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(tiny_config.read_bytes())
    assert run_tool('test', elsewhere, tiny_checkpoint, '--data', shared_coco_folder, '--work-dir', tmp_path / 'test',
                    '--report', tmp_path / 'report') == 0
    text = (tmp_path / 'report' / 'report.json').read_text()
    assert json.loads(text)['config'] == str(tiny_config)


@pytest.mark.parametrize('option', ['--out', '--report'])
def test_a_report_needs_cocos_evaluation(tiny_config, run_tool, tmp_path, capsys, option):
    assert run_tool('test', tiny_config, tmp_path / 'none.pth', option, tmp_path / 'report', '--cfg-options',
                    'test_evaluator.type=VOCMetric') == 2
    assert 'need a CocoMetric among the test evaluators' in capsys.readouterr().err


def test_pictures_are_left_out_of_a_report_alone(tiny_config, run_tool, tmp_path, capsys):
    assert run_tool('test', tiny_config, tmp_path / 'none.pth', '--no-pictures') == 2
    assert '--no-pictures is about the page of --report' in capsys.readouterr().err
