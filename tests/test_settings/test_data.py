"""Settings of data sets and loaders."""
from __future__ import annotations

import pytest
from mmengine.config import Config
from recipes_of_configs import read

from mmmamba.datasets.formats import coco_datasets
from mmmamba.errors import InputError
from mmmamba.model_config import parts
from mmmamba.settings import class_names, with_batch_size, with_classes, with_data_root, with_metainfo, with_workers
from mmmamba.settings.data import LOADERS, TEST_LOADERS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
BCCD = 'mamba_yolo/mamba-yolo_t_1xb16-30e_bccd'
MASK_RCNN = 'vmamba/mask-rcnn_vmamba-t_fpn_ms-crop-3x_coco'


def datasets(cfg: Config) -> list:
    return [dataset for loader in LOADERS for dataset in coco_datasets(cfg[loader].dataset)]


@pytest.mark.parametrize('name, chosen, in_order', [
    (BCCD, ['Platelets', 'RBC'], ('RBC', 'Platelets')),
    (MASK_RCNN, ['dog', 'person'], ('person', 'dog')),
    ('mamba_yolo/mamba-yolo_t_8xb64-300e_voc', ['cat'], ('cat',)),
])
def test_some_classes_reach_data_sets_and_heads(name, chosen, in_order):
    cfg = with_classes(read(name), chosen)
    assert class_names(cfg) == in_order
    assert {tuple(dataset.metainfo.classes) for dataset in datasets(cfg)} == {in_order}
    assert {part.num_classes for part in parts(cfg.model) if 'num_classes' in part} == {len(in_order)}
    palette = datasets(cfg)[0].metainfo.get('palette')
    assert palette is None or len(palette) == len(in_order)


def test_heads_that_count_words_keep_their_number():
    cfg = Config(dict(model=dict(language_model=dict(type='BertModel'), bbox_head=dict(num_classes=256))))
    assert with_metainfo(cfg, dict(classes=('a',))).model.bbox_head.num_classes == 256


@pytest.mark.parametrize('root, evaluated', [('elsewhere', 'elsewhere/annotations/'), ('/a/', '/a/annotations/')])
@pytest.mark.parametrize('name', [BCCD, MASK_RCNN, 'mamba_yolo/mamba-yolo_t_demo'])
def test_another_folder_reaches_every_path_below_it(name, root, evaluated):
    cfg = with_data_root(read(name), root)
    assert {dataset.data_root for dataset in datasets(cfg)} == {root}
    assert cfg.val_evaluator.ann_file.startswith(evaluated) and cfg.test_evaluator.ann_file.startswith(evaluated)


def test_batches_and_workers():
    cfg = with_workers(with_batch_size(read(BCCD), 5), 0)
    assert [cfg[loader].batch_size for loader in LOADERS] == [5, 16, 16]
    assert {(cfg[loader].num_workers, cfg[loader].persistent_workers) for loader in LOADERS} == {(0, False)}
    cfg = with_workers(with_batch_size(read(BCCD), 5, TEST_LOADERS), 3)
    assert [cfg[loader].batch_size for loader in LOADERS] == [16, 5, 5]
    assert {(cfg[loader].num_workers, cfg[loader].persistent_workers) for loader in LOADERS} == {(3, True)}


def two_folders() -> Config:
    cfg = with_data_root(read(BCCD), 'a')
    cfg.val_dataloader.dataset.data_root = 'b'
    return cfg


@pytest.mark.parametrize('call, words', [
    (lambda: with_classes(read(MASK_RCNN), ['person', 'persson']), "no class 'persson'; did you mean person"),
    (lambda: with_classes(read(BCCD), ['zebra']), 'its classes are RBC, WBC, Platelets'),
    (lambda: with_classes(read(BCCD), []), 'got none'),
    (lambda: with_classes(read(BCCD), ['RBC', 'RBC']), 'each once'),
    (lambda: with_batch_size(read(BCCD), 0), 'at least one image'),
    (lambda: with_workers(read(BCCD), -1), 'negative'),
    (lambda: with_data_root(two_folders(), 'c'), 'which are in a and b: set it in each'),
])
def test_bad_arguments(call, words):
    with pytest.raises(InputError, match=words):
        call()
