"""The config of each run, and how long it trains."""
from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config

from mmmamba import recipes
from mmmamba.analysis.compare.evaluation import read_truth
from mmmamba.analysis.compare.plan import epochs_within, facts, run_config, truth_of, with_seed
from mmmamba.analysis.compare.runs import Launch
from mmmamba.datasets.composed import Composition, compose
from mmmamba.engine import AutocastOptimWrapper
from mmmamba.errors import InputError

pytestmark = pytest.mark.usefixtures('mmdet_scope')
CONFIGS = Path(__file__).parents[3] / 'configs'
YOLO, DINO = CONFIGS / 'yolov8/yolov8_n_8xb64-300e_coco.py', CONFIGS / 'dino/dino-4scale_r50_8xb2-12e_coco.py'
TRAIN = """
import json, pathlib, sys
config, _, folder = sys.argv[1:]
log = pathlib.Path(folder) / '20260101_000000/vis_data/scalars.json'
log.parent.mkdir(parents=True)
times = [30.0, 2.0, 2.0, 2.0]
log.write_text(chr(10).join(json.dumps(dict(loss=1.0, time=time)) for time in times))
torn = log.parents[2] / '20250101_000000/vis_data/scalars.json'  # of one that was killed
torn.parent.mkdir(parents=True)
torn.write_text('{"loss": 1.0, "ti')
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path) -> str:
    compose(tmp_path / 'data', Composition(train_images=10, val_images=2, image_size=64, digits=(1, 1),
                                           digit_size=(32, 40)))
    return str(tmp_path / 'data')


def make(path: Path, data: str, epochs: int | None = 4, scratch: bool = True, **options) -> Config:
    return run_config(path, data, Path('truth.json').absolute(), epochs=epochs, scratch=scratch,
                      options=options)


def test_a_data_set_is_looked_at_once_for_all_detectors(data):
    with mock.patch.object(recipes, 'find_data', wraps=recipes.find_data) as find:
        for path in (YOLO, DINO):
            make(path, data)
    assert find.call_count == 1


def test_every_detector_gets_the_same_conditions(data):
    yolo, dino = (make(path, data, **{'train_dataloader.batch_size': 4}).to_dict() for path in (YOLO, DINO))
    different = {key for key in yolo if yolo[key] != dino[key]}
    # DINO's optimizer is its own, and so is its weight decay.
    assert different == {'model', 'optim_wrapper', 'custom_hooks'}
    assert yolo['train_cfg']['max_epochs'] == 4 and yolo['train_dataloader']['batch_size'] == 4
    assert yolo['default_hooks']['checkpoint']['save_best'] is None


@pytest.mark.parametrize('epochs, interval', [(1, 1), (10, 1), (30, 3), (None, 3)])
def test_a_curve_has_some_ten_points(data, epochs, interval):
    assert make(YOLO, data, epochs).train_cfg.val_interval == interval


def test_seeds_differ_in_nothing_else(data):
    cfg = make(YOLO, data)
    seeded = Config.fromstring(with_seed(cfg.pretty_text, 3), '.py').to_dict()
    assert seeded == {**cfg.to_dict(), 'randomness': {'seed': 3}}
    cfg = make(YOLO, data, **{'randomness.deterministic': True})
    assert Config.fromstring(with_seed(cfg.pretty_text, 3), '.py').randomness == dict(seed=3, deterministic=True)


def test_options_have_the_last_word_but_for_the_length(data):
    options = {'train_cfg.val_interval': 4, 'default_hooks.checkpoint.max_keep_ckpts': 5}
    cfg = make(YOLO, data, **options)
    assert cfg.train_cfg.val_interval == 4 and cfg.default_hooks.checkpoint.max_keep_ckpts == 5
    with pytest.raises(InputError, match='set by --epochs'):
        make(YOLO, data, **{'train_cfg.max_epochs': 7})
    with pytest.raises(InputError, match='set by --seeds'):
        make(YOLO, data, **{'randomness.seed': 7})


OBJECT = '<object><name>{}</name><difficult>{}</difficult><bndbox>{}</bndbox></object>'


def compose_voc(root: Path) -> None:
    """An image with a cat and a difficult dog in each of the splits."""
    corners = '<xmin>5</xmin><ymin>9</ymin><xmax>25</xmax><ymax>49</ymax>'
    for year, split in ((2007, 'trainval'), (2007, 'test'), (2012, 'trainval')):
        for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
            (root / f'VOC{year}' / folder).mkdir(parents=True, exist_ok=True)
        folder, name = root / f'VOC{year}', f'00{year}{len(split)}'
        cv2.imwrite(str(folder / f'JPEGImages/{name}.jpg'), np.zeros((60, 80, 3), np.uint8))
        (folder / f'ImageSets/Main/{split}.txt').write_text(f'{name}\n')
        (folder / f'Annotations/{name}.xml').write_text(
            '<annotation><size><width>80</width><height>60</height></size>'
            + OBJECT.format('cat', 0, corners) + OBJECT.format('dog', 1, corners) + '</annotation>')


def test_voc_is_evaluated_as_coco(tmp_path, monkeypatch):
    compose_voc(tmp_path / 'voc')
    monkeypatch.setenv('VOC', f'{tmp_path / "voc"}/')
    cfg = make(YOLO, 'voc', 4)
    annotations, images = truth_of(cfg)
    truth = read_truth(annotations)
    image, = truth['images']
    assert (image['width'], image['height']) == (80, 60) and (images / image['file_name']).is_file()
    cat, dog = truth['annotations']
    assert cat['bbox'] == [4, 8, 20, 40] and cat['area'] == 800 and (cat['iscrowd'], dog['iscrowd']) == (0, 1)
    names = {category['id']: category['name'] for category in truth['categories']}
    assert (names[cat['category_id']], names[dog['category_id']], len(names)) == ('cat', 'dog', 20)

    metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = DATASETS.build(cfg.test_dataloader.dataset).metainfo
    found = dict(bboxes=torch.tensor([[4.0, 8.0, 24.0, 48.0]]), scores=torch.tensor([0.9]),
                 labels=torch.tensor([metric.dataset_meta['classes'].index('cat')]))
    metric.process({}, [dict(img_id=image['id'], ori_shape=(60, 80), pred_instances=found)])
    assert metric.evaluate(1)['coco/bbox_mAP'] == 1.0
    told = facts({'yolo': cfg}, 'voc', [0], scratch=True, jobs=1)
    assert all(words in told['data set'] for words in ('voc: ', '2 images', '1 for testing', '20 classes'))


def test_the_truth_of_a_folder(data):
    annotations, images = truth_of(make(YOLO, data))
    assert annotations.name == 'val.json' and len(list(images.glob('*.jpg'))) == 2


def test_facts_tell_what_differs(data):
    configs = {'yolo': make(YOLO, data), 'dino': make(DINO, data, 5)}
    told = facts(configs, 'data', [0, 1], scratch=True, jobs=2)
    assert all(words in told['data set'] for words in ('data: ', '10 images', '2 for testing', '10 classes'))
    assert told['epochs'] == '4 (yolo); 5 (dino)' and told['seeds'] == '0, 1' and told['initial weights'] == 'random'
    # The recipe's weight decay, 0.05, is for a batch of 64.
    assert re.fullmatch(r'AdamW.* 0\.0014.* 0\.0125 \(yolo\); AdamW.* 0\.0001.* 0\.0001 \(dino\)', told['optimizer'])
    assert re.fullmatch(r'.*0\.001.*NMS.*0\.7.*300 \(yolo\); .*300 \(dino\)', told['post-processing'])
    assert told['image size'] == '320 x 320' and told['tested'].startswith('the last weights, as a moving average')
    assert facts({'yolo': configs['yolo']}, 'data', [0], scratch=False, jobs=1)['epochs'] == '4'
    assert told['precision'] == 'float32'


class OwnWrapper(AutocastOptimWrapper):
    pass


PRECISIONS = [
    ({'type': 'AutocastOptimWrapper'}, 'mixed, bfloat16'),  # its default
    ({'type': 'AutocastOptimWrapper', 'dtype': 'float16'}, 'mixed, float16'),
    ({'type': 'AmpOptimWrapper', 'dtype': 'bfloat16'}, 'mixed, bfloat16'),
    ({'type': 'AmpOptimWrapper'}, 'mixed, float16'),  # it refuses a CPU; on a GPU, this is autocast's own
    ({'type': OwnWrapper, 'dtype': 'float16'}, 'mixed, float16'),
    ({'type': 'OptimWrapper'}, 'float32'),
]


@pytest.mark.parametrize('path', [YOLO, DINO])
def test_facts_tell_the_precision(data, path):
    read, other = make(path, data), make(YOLO, data)
    for settings, precision in PRECISIONS:
        mixed = copy.deepcopy(read)
        mixed.optim_wrapper.update(settings)
        assert facts({'a': mixed}, 'data', [0], scratch=True, jobs=1)['precision'] == precision, settings
        both = facts({'a': mixed, 'b': other}, 'data', [0], scratch=True, jobs=1)['precision']
        assert both == ('float32' if precision == 'float32' else f'{precision} (a); float32 (b)'), settings


def test_an_option_that_nothing_reads_is_refused(data):
    with pytest.raises(InputError, match='no setting optim_wraper; did you mean optim_wrapper'):
        make(YOLO, data, **{'optim_wraper.optimizer.lr': 1.0})


def test_epochs_that_fit_into_minutes(data, tmp_path):
    (tmp_path / 'train.py').write_text(TRAIN)
    launch, cfg = Launch(tmp_path), make(YOLO, data, None, **{'train_dataloader.batch_size': 4})
    # 10 images are 3 iterations of 2 s; the first, slow one is not typical.
    assert epochs_within(1.0, cfg, tmp_path / 'net', launch) == 10
    trial = Config.fromfile(tmp_path / 'net/trial/config.py')
    assert len(DATASETS.build(trial.train_dataloader.dataset)) == 10  # 8 iterations would be 32
    assert trial.train_cfg.max_epochs == 1 and trial.train_cfg.val_begin > 1  # which mmengine would validate
    assert json.loads((tmp_path / 'net/budget.json').read_text()) == dict(
        seconds_per_iteration=2.0, iterations_per_epoch=3)
    (tmp_path / 'train.py').unlink()  # what was measured is not measured again
    assert epochs_within(2.0, cfg, tmp_path / 'net', launch) == 20
    assert epochs_within(0.001, cfg, tmp_path / 'net', None) == 1
    with pytest.raises(InputError, match='differs in train_dataloader'):  # measured with another batch
        epochs_within(1.0, make(YOLO, data, None, **{'train_dataloader.batch_size': 2}), tmp_path / 'net', launch)
    with pytest.raises(InputError, match='not been timed'):
        epochs_within(1.0, cfg, tmp_path / 'other', None)


def test_a_trial_that_fails_says_why(data, tmp_path):
    (tmp_path / 'train.py').write_text('raise SystemExit("out of memory")')
    with pytest.raises(InputError, match='out of memory'):
        epochs_within(1.0, make(YOLO, data, None), tmp_path / 'net', Launch(tmp_path))
