"""tools/search_directions.py: from a config to a config with the directions that were found."""
from __future__ import annotations

import re

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmmamba.layers.direction_search import CANDIDATES


def test_search_and_train_what_was_found(tiny_config, run_tool, tmp_path, capsys):
    work_dir = tmp_path / 'search'
    assert run_tool('search_directions', tiny_config, '--work-dir', work_dir, '--cfg-options',
                    'train_cfg.max_epochs=1', 'model.backbone.num_ss2d=2') == 0
    printed = capsys.readouterr().out
    target = work_dir / 'tiny_directions.py'
    options = 'model.backbone.num_ss2d=2'
    assert f'train them with: python tools/train.py {target} --cfg-options {options}\n' in printed
    found = Config.fromfile(target)
    found.merge_from_dict({'model.backbone.num_ss2d': 2})
    found = found.model
    assert len(found.backbone.directions) == 8 and len(found.neck.directions) == 4
    for directions in (*found.backbone.directions, *found.neck.directions):
        assert len(set(directions)) == 4 and set(directions) <= set(CANDIDATES)
    first = ' '.join(found.backbone.directions[0])
    assert re.search(rf'backbone\.stages\.0\.0\.ss2d\.0 +{first} +(0\.\d+ ?){{4}}', printed)
    init_default_scope('mmdet')
    detector = MODELS.build(found)
    assert detector.backbone.stages[0][0].ss2d[0].directions == tuple(found.backbone.directions[0])
    assert detector.backbone.stages[3][0].ss2d[1].directions == tuple(found.backbone.directions[7])
    assert detector.neck.bottom_up_blocks[1].ss2d[0].directions == tuple(found.neck.directions[-1])

    assert run_tool('search_directions', tiny_config, '--work-dir', work_dir, '--resume', '--cfg-options',
                    options) == 0
    assert (work_dir / 'epoch_2.pth').is_file()


def test_a_model_without_scans_is_refused(tiny_config, run_tool, tmp_path, capsys):
    assert run_tool('search_directions', tiny_config, '--work-dir', tmp_path / 'search', '--cfg-options',
                    'model.backbone.num_ss2d=0', 'model.neck.num_ss2d=0') == 2
    assert 'no scan whose directions can be searched' in capsys.readouterr().err


@pytest.mark.parametrize('given, problem', [
    (['--epochs', '3'], '--epochs is of the recipe of --data'),
    (['--data', 'bccd', '--epochs', '0'], 'the number of epochs must be positive, got 0'),
])
def test_epochs_are_of_a_recipe_and_positive(given, problem, tiny_config, run_tool, capsys):
    assert run_tool('search_directions', tiny_config, *given) == 2
    assert problem in capsys.readouterr().err
