from __future__ import annotations

import dataclasses
import json
import re
import statistics

import pytest

from mmmamba.analysis.compare import report
from mmmamba.analysis.compare.report import write_report
from mmmamba.analysis.compare.results import RunResult
from mmmamba.errors import InputError

FILES = {'README.md', 'index.html', 'runs.csv', 'ap.png', 'ap_over_epochs.png', 'ap_over_time.png',
         'precision_recall.png', 'errors.png', 'pictures.png'}
HOSTILE = '<script>alert(1)</script>|$\\frac$_`*"'


@pytest.fixture
def annotations(shared_coco_folder):
    return shared_coco_folder / 'annotations' / 'train.json'


@pytest.fixture
def two_configs(annotations, make_run):
    return [make_run(annotations, name, seed, skill) for name, skill in (('good_1x_tiny', 0.9), ('bad_1x_tiny', 0.5))
            for seed in (0, 1, 2)]


def rows_of(markdown: str, first_header: str) -> list[dict[str, str]]:
    """The table whose header begins with a cell, as header → cell."""
    lines = markdown[markdown.index(f'| {first_header} |'):].split('\n\n')[0].splitlines()
    cells = [[cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]] for line in lines]
    assert len({len(row) for row in cells}) == 1
    return [dict(zip(cells[0], row)) for row in cells[2:]]


def test_numbers_are_those_of_the_runs(tmp_path, comparison_of, two_configs):
    write_report(comparison_of(*two_configs), tmp_path / 'report')
    assert {path.name for path in (tmp_path / 'report').iterdir()} == FILES
    text = (tmp_path / 'report' / 'README.md').read_text()
    assert text.startswith('# Two detectors\n\nMade by\n\n```bash\npython tools/compare.py a.py b.py\n```\n')
    assert rows_of(text, 'condition') == [{'condition': 'epochs', 'value': '10'}]
    page = (tmp_path / 'report' / 'index.html').read_text()
    assert '://' not in page and page.count('<img src="') == 6

    rows = rows_of(text, 'config | parameters')
    assert [row['config'] for row in rows] == ['good_1x_tiny', 'bad_1x_tiny']
    for row, runs in zip(rows, (two_configs[:3], two_configs[3:])):
        aps = [100 * run.metrics['coco/bbox_mAP'] for run in runs]
        expected = f'{statistics.mean(aps):.1f} ± {statistics.stdev(aps):.1f} (n = 3)'
        assert row['AP'] == expected and f'>{expected}</td>' in page
        assert row['AP by seed'] == f'0: {aps[0]:.1f}, 1: {aps[1]:.1f}, 2: {aps[2]:.1f}'
        ap50s = [100 * run.metrics['coco/bbox_mAP_50'] for run in runs]
        assert row['AP50'] == f'{statistics.mean(ap50s):.1f} ± {statistics.stdev(ap50s):.1f}'
        assert row['AP large'] == '–'  # the images are too small for such objects
        assert row['minutes'] == '15.2 ± 0.2' and row['runs'] == '3 of 3 finished'
        assert row['parameters'] == '5.00 M'


def test_no_finished_run(tmp_path, comparison_of):
    write_report(comparison_of(RunResult('a', 0, failure='failed: it broke')), tmp_path / 'report')
    assert {path.name for path in (tmp_path / 'report').iterdir()} == {'README.md', 'index.html', 'runs.csv'}
    text = (tmp_path / 'report' / 'README.md').read_text()
    assert 'No run has finished.' in text and 'seed 0 failed: it broke' in text and '![' not in text
    assert 'No run has finished.' in (tmp_path / 'report' / 'index.html').read_text()


def test_no_run_at_all(tmp_path, comparison_of):
    write_report(comparison_of(), tmp_path / 'report')
    assert 'No run has finished.' in (tmp_path / 'report' / 'README.md').read_text()


def test_runs_without_history_and_detections(tmp_path, comparison_of):
    write_report(comparison_of(RunResult('a', 0, metrics={'coco/bbox_mAP': 0.4})), tmp_path / 'report')
    assert {path.name for path in (tmp_path / 'report').iterdir()} == {'README.md', 'index.html', 'runs.csv', 'ap.png'}
    row, = rows_of((tmp_path / 'report' / 'README.md').read_text(), 'config | parameters')
    assert (row['AP'], row['AP50'], row['minutes']) == ('40.0 (n = 1)', '–', '–')


def test_same_runs_give_the_same_bytes_and_pictures_of_an_earlier_report_go(tmp_path, comparison_of, two_configs):
    comparison = comparison_of(two_configs[0])
    for name in ('one', 'two'):
        write_report(comparison, tmp_path / name)
    for name in FILES:
        assert (tmp_path / 'one' / name).read_bytes() == (tmp_path / 'two' / name).read_bytes(), name

    write_report(comparison, tmp_path / 'two', pictures=False)
    assert {path.name for path in (tmp_path / 'two').iterdir()} == FILES - {'pictures.png'}
    assert 'pictures.png' not in (tmp_path / 'two' / 'README.md').read_text()


def test_hostile_strings_stay_text(tmp_path, comparison_of, two_configs, annotations):
    renamed = tmp_path / 'renamed.json'
    content = json.loads(annotations.read_text())
    content['categories'][0]['name'] = HOSTILE
    renamed.write_text(json.dumps(content))
    runs = (dataclasses.replace(two_configs[0], name=HOSTILE), RunResult(HOSTILE, 7, failure=HOSTILE))
    write_report(comparison_of(*runs, title=HOSTILE, command=HOSTILE, conditions={HOSTILE: HOSTILE},
                               annotations=renamed), tmp_path / 'report')
    page = (tmp_path / 'report' / 'index.html').read_text()
    assert '<script' not in page and page.count('&lt;script&gt;') >= 6
    text = (tmp_path / 'report' / 'README.md').read_text()
    assert text.count('<script') == 1  # in the fenced command, where it is text
    rows = rows_of(text, 'config | parameters')  # the columns of every row fit
    assert rows[0]['config'] == rows[1]['config'] == r'&lt;script&gt;alert(1)&lt;/script&gt;\|\$\\frac\$\_\`\*"'
    assert (tmp_path / 'report' / 'ap.png').stat().st_size > 0


def test_file_names_stay_inside_the_image_folder(tmp_path, comparison_of, two_configs, annotations):
    outside = tmp_path / 'outside.json'
    content = json.loads(annotations.read_text())
    content['images'][0]['file_name'] = '../secret.jpg'
    outside.write_text(json.dumps(content))
    with pytest.raises(InputError, match='leads out of the image folder'):
        write_report(comparison_of(two_configs[0], annotations=outside), tmp_path / 'report')
    assert not (tmp_path / 'report').exists()


def test_matplotlib_is_asked_for_in_one_line(tmp_path, comparison_of, monkeypatch):
    monkeypatch.setattr(report, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match=r'pip install mmmamba\[demo\]'):
        write_report(comparison_of(), tmp_path / 'report')
