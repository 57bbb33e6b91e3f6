"""The config of each run, and how long it trains."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config

from mmmamba.comparison.budget import epochs_within
from mmmamba.comparison.facts import facts, truth
from mmmamba.comparison.plan import run_config, with_seed
from mmmamba.comparison.run import Launch
from mmmamba.demo.composer import Composition, compose
from mmmamba.errors import InputError

pytestmark = pytest.mark.usefixtures('mmdet_scope')
CONFIGS = Path(__file__).parents[2] / 'configs'
YOLO, DINO = CONFIGS / 'yolov8/yolov8_n_8xb64-300e_coco.py', CONFIGS / 'dino/dino-4scale_r50_8xb2-12e_coco.py'
TRAIN = """
import json, pathlib, sys
config, _, folder = sys.argv[1:]
log = pathlib.Path(folder) / '20260101_000000/vis_data/scalars.json'
log.parent.mkdir(parents=True)
times = [30.0, 2.0, 2.0, 2.0]
log.write_text(chr(10).join(json.dumps(dict(loss=1.0, time=time)) for time in times))
"""


@pytest.fixture
def data(tmp_path) -> str:
    compose(tmp_path / 'data', Composition(train_images=10, val_images=2, image_size=64, digits=(1, 1),
                                           digit_size=(32, 40)))
    return str(tmp_path / 'data')


def make(path: Path, data: str, epochs: int | None = 4, scratch: bool = True, **options) -> Config:
    return run_config(path, data, CONFIGS, epochs=epochs, scratch=scratch, options=options)


def test_every_detector_gets_the_same_conditions(data):
    yolo, dino = (make(path, data, **{'train_dataloader.batch_size': 4}).to_dict() for path in (YOLO, DINO))
    different = {key for key in yolo if yolo[key] != dino[key]}
    assert different == {'model', 'optim_wrapper'}  # DINO's optimizer is its own
    assert yolo['train_cfg']['max_epochs'] == 4 and yolo['train_dataloader']['batch_size'] == 4
    assert yolo['default_hooks']['checkpoint']['save_best'] is None


@pytest.mark.parametrize('epochs, interval', [(1, 1), (10, 1), (30, 3), (None, 3)])
def test_a_curve_has_some_ten_points(data, epochs, interval):
    assert make(YOLO, data, epochs).train_cfg.val_interval == interval


def test_seeds_differ_in_nothing_else(data):
    cfg = make(YOLO, data)
    seeded = Config.fromstring(with_seed(cfg.pretty_text, 3), '.py').to_dict()
    assert seeded == {**cfg.to_dict(), 'randomness': {'seed': 3}}


def test_voc_is_evaluated_as_coco(tmp_path):
    cfg = make(YOLO, 'voc', 4)
    assert cfg.test_evaluator.type == cfg.val_evaluator.type == 'CocoMetric'
    assert cfg.test_dataloader.dataset.pipeline[-1].meta_keys[-1] == 'instances'
    assert truth(cfg, tmp_path / 'results') == (tmp_path / 'results.gt.json', None)


def test_the_truth_of_a_folder(data, tmp_path):
    annotations, images = truth(make(YOLO, data), tmp_path)
    assert annotations.name == 'val.json' and len(list(images.glob('*.jpg'))) == 2


def test_facts_tell_what_differs(data):
    configs = {'yolo': make(YOLO, data), 'dino': make(DINO, data, 5)}
    told = facts(configs, data, [0, 1], scratch=True)
    assert told['data set'] == 'data: 10 images for training, 2 for testing, 10 classes'
    assert told['epochs'] == '4 (yolo); 5 (dino)' and told['seeds'] == '0, 1' and told['initial weights'] == 'random'
    assert told['optimizer'] == ('AdamW, learning rate 0.0014, weight decay 0.05 (yolo); '
                                 'AdamW, learning rate 0.0001, weight decay 0.0001 (dino)')
    assert facts({'yolo': configs['yolo']}, data, [0], scratch=False)['epochs'] == '4'


def test_epochs_that_fit_into_minutes(data, tmp_path):
    (tmp_path / 'train.py').write_text(TRAIN)
    launch, cfg = Launch(tmp_path), make(YOLO, data, None, **{'train_dataloader.batch_size': 4})
    # 10 images are 3 iterations of 2 s; the first, slow one is not typical.
    assert epochs_within(1.0, cfg, tmp_path / 'net', launch) == 10
    trial = Config.fromfile(tmp_path / 'net/trial/config.py')
    assert len(DATASETS.build(trial.train_dataloader.dataset)) == 10  # 8 iterations would be 32
    assert trial.train_cfg.max_epochs == 1
    assert json.loads((tmp_path / 'net/budget.json').read_text()) == dict(
        seconds_per_iteration=2.0, iterations_per_epoch=3)
    (tmp_path / 'train.py').unlink()  # what was measured is not measured again
    assert epochs_within(2.0, cfg, tmp_path / 'net', launch) == 20
    assert epochs_within(0.001, cfg, tmp_path / 'net', launch) == 1


def test_a_trial_that_fails_says_why(data, tmp_path):
    (tmp_path / 'train.py').write_text('raise SystemExit("out of memory")')
    with pytest.raises(InputError, match='out of memory'):
        epochs_within(1.0, make(YOLO, data, None), tmp_path / 'net', Launch(tmp_path))
