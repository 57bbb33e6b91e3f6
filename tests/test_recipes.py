"""The switch of data set and recipe."""
from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS, HOOKS, MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mmmamba import recipes
from mmmamba.datasets.composed import Composition, compose
from mmmamba.errors import InputError
from mmmamba.model_config import parts
from mmmamba.recipes import RECIPES, default_work_dir, from_scratch, under_recipe
from mmmamba.settings import with_epochs

pytestmark = pytest.mark.usefixtures('mmdet_scope')
CONFIGS = Path(__file__).parents[1] / 'configs'
BASELINES = ['dino/dino-4scale_r50_8xb2-12e_coco', 'rtmdet/rtmdet_tiny_8xb32-300e_coco',
             'rtmdet/rtmdet_s_8xb32-300e_coco', 'yolox/yolox_s_8xb8-300e_coco',
             *(f'yolov8/yolov8_{size}_8xb64-300e_coco' for size in 'nsml'),
             'mamba_yolo/mamba-yolo_t_8xb64-300e_coco']
CLASSES = {'coco': 80, 'voc': 20, 'bccd': 3, 'demo': 10}
TINY = Composition(train_images=2, val_images=2, image_size=64, digits=(1, 1), digit_size=(32, 40))


@cache
def read(name: str) -> Config:
    """A config, which nothing here may change."""
    return Config.fromfile(CONFIGS / f'{name}.py')


@pytest.fixture(autouse=True)
def composed_elsewhere(monkeypatch, tmp_path):
    """Where the demo's images are composed, and which."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, 'Composition', lambda: TINY)


@pytest.mark.parametrize('data', RECIPES)
@pytest.mark.parametrize('name', BASELINES)
def test_every_baseline_goes_on_every_data_set(name, data):
    cfg = under_recipe(read(name), data)
    base = Config.fromfile(CONFIGS / '_base_' / RECIPES[data])
    for key in ('train_dataloader', 'test_dataloader', 'test_evaluator', 'train_cfg', 'param_scheduler'):
        assert cfg[key] == base[key]
    assert cfg.model.bbox_head.num_classes == CLASSES[data]
    assert 'batch_augments' not in cfg.model.data_preprocessor


def test_padding_to_one_size_is_part_of_a_recipe():
    vim = read('vim/cascade-mask-rcnn_vim-ti_simple-pyramid_8xb8-lsj-100e_coco')
    assert vim.model.data_preprocessor.pad_size_divisor == 1024
    assert under_recipe(vim, 'bccd').model.data_preprocessor.pad_size_divisor == 32


@pytest.mark.parametrize('name', ['yolov8/yolov8-seg_n', 'mamba_yolo/mamba-yolo-seg_t'])
def test_a_detector_with_masks_brings_masks_into_the_recipe(name):
    own = read(f'{name}_8xb64-300e_coco')
    cfg = under_recipe(own, 'coco')
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator',
                'custom_hooks', 'tta_model', 'tta_pipeline'):
        assert cfg[key] == own[key], key
    assert cfg.model == own.model
    for data in ('bccd', 'demo'):
        cfg = under_recipe(own, data)
        kinds = {part.get('type') for part in parts(cfg.train_dataloader)}
        assert {'LoadInstanceMasks', 'PackMaskTargets'} <= kinds
        assert not {'LoadAnnotations', 'PackDetInputs', 'Mosaic'} & kinds
        assert cfg.test_evaluator.metric == cfg.val_evaluator.metric == ['bbox', 'segm']
    with pytest.raises(InputError, match='voc has boxes alone'):
        under_recipe(own, 'voc')


def test_mask_rcnn_brings_masks_into_the_recipe():
    own = read('vim/cascade-mask-rcnn_vim-ti_simple-pyramid_8xb8-lsj-100e_coco')
    cfg = under_recipe(own, 'demo')
    assert cfg.test_evaluator.metric == cfg.val_evaluator.metric == ['bbox', 'segm']
    sample = DATASETS.build(cfg.train_dataloader.dataset)[0]
    masks = sample['data_samples'].gt_instances.masks  # of the image's size, as its heads want them
    assert masks.to_ndarray().shape == (1, *sample['inputs'].shape[1:]) and masks.to_ndarray().any()
    with pytest.raises(InputError, match='voc has boxes alone'):
        under_recipe(own, 'voc')


@pytest.mark.parametrize('own, merged', [
    (dict(imports=['mmmamba', 'os']), dict(imports=['mmmamba', 'os'])),
    (dict(imports='os', allow_failed_imports=True), dict(imports=['mmmamba', 'os'], allow_failed_imports=True)),
    (None, dict(imports=['mmmamba'])),
])
def test_what_a_config_imports_stays(own, merged):
    cfg = copy.deepcopy(read(BASELINES[0]))
    cfg.custom_imports = own
    assert under_recipe(cfg, 'bccd').custom_imports == merged


def test_detectors_of_the_detr_family_keep_their_optimizer():
    kept = {str(path.relative_to(CONFIGS)): 'optim_wrapper' in cfg.get('own_settings', ())
            for path in CONFIGS.glob('[!_]*/*_coco.py') for cfg in [Config.fromfile(path)]
            if cfg.model.get('bbox_head', {}).get('type') in ('ClippedDINOHead', 'ClippedDeformableDETRHead')}
    assert len(kept) >= 7 and all(kept.values())


@pytest.mark.parametrize('name', BASELINES)
def test_every_baseline_builds_under_another_recipe(name):
    cfg = under_recipe(read(name), 'bccd')
    cfg.model.backbone.pop('init_cfg', None)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert isinstance(wrapper.optimizer, getattr(torch.optim, cfg.optim_wrapper.optimizer.type))
    assert all(HOOKS.build(hook) for hook in cfg.custom_hooks)


def test_the_model_and_what_the_config_keeps_stay():
    dino, yolo = read(BASELINES[0]), read(BASELINES[-1])
    before = copy.deepcopy(dino.to_dict())
    switched = under_recipe(dino, 'bccd')
    assert dino.to_dict() == before
    assert switched.optim_wrapper == dino.optim_wrapper
    assert 'ScaleWeightDecayHook' not in {hook.type for hook in switched.custom_hooks}
    letterbox = {**dino.model.data_preprocessor, 'type': 'LetterboxPreprocessor'}
    assert {**switched.model, 'bbox_head': None} == {**dino.model, 'bbox_head': None, 'data_preprocessor': letterbox}
    assert {**switched.model.bbox_head, 'num_classes': 80} == dino.model.bbox_head
    inherited = Config(dict(model=dict(type='YOLOX', bbox_head=dict(type='YOLOXHead', num_classes=80))))
    assert under_recipe(inherited, 'bccd').model.bbox_head.type == 'ClippedYOLOXHead'
    assert under_recipe(yolo, 'bccd').optim_wrapper.optimizer.type == 'AdamW'


@pytest.mark.parametrize('data, init', [('coco', None), ('voc', None), ('bccd', 'mamba'), ('demo', 'mamba')])
def test_short_runs_start_from_mambas_initialisation(data, init):
    model = under_recipe(read(BASELINES[-1]), data).model
    assert model.backbone.get('ssm_init') == model.neck.get('ssm_init') == init
    assert 'ssm_init' not in under_recipe(read(BASELINES[4]), data).model.backbone


def test_the_demo_set_is_composed_and_can_be_read():
    cfg = under_recipe(read(BASELINES[1]), 'demo')
    sample = DATASETS.build(cfg.train_dataloader.dataset)[0]
    assert tuple(sample['inputs'].shape) == (3, 192, 192) and len(sample['data_samples'].gt_instances) == 1


def test_masks_of_the_demo_set_can_be_read():
    """They are run lengths."""
    cfg = under_recipe(read('yolov8/yolov8-seg_n_8xb64-300e_coco'), 'demo')
    found = DATASETS.build(cfg.train_dataloader.dataset)[0]['data_samples'].gt_instances
    assert found.masks.masks.shape == (1, 48, 48) and found.masks.masks.any()
    assert DATASETS.build(cfg.test_dataloader.dataset)[0]['data_samples'].gt_instances.masks.masks.any()


def test_a_folder_is_trained_under_the_recipe_of_bccd(tmp_path):
    compose(tmp_path / 'mine', TINY)
    cfg = under_recipe(read(BASELINES[1]), str(tmp_path / 'mine'))
    assert cfg.param_scheduler == under_recipe(read(BASELINES[1]), 'bccd').param_scheduler
    assert cfg.model.bbox_head.num_classes == 10
    sample = DATASETS.build(cfg.test_dataloader.dataset)[0]
    assert tuple(sample['inputs'].shape) == (3, 320, 320)


def test_two_stage_detectors_have_the_classes_in_every_head():
    cfg = under_recipe(read('od_mamba/cascade-mask-rcnn_od-mamba-t_fpn_1x_coco'), 'bccd')
    numbers = [part.num_classes for part in parts(cfg.model) if 'num_classes' in part]
    assert numbers == [3] * 4  # three stages, and the masks


def test_another_length_keeps_the_recipes_proportions():
    cfg = under_recipe(read(BASELINES[-1]), 'bccd')  # 30 epochs, 3 of warm-up, mosaic until the 20th
    short = with_epochs(cfg, 6)
    switch, = (hook for hook in short.custom_hooks if hook.type == 'PipelineSwitchHook')
    assert short.train_cfg.max_epochs == 6 and switch.switch_epoch == 4
    assert short.param_scheduler[0].warmup_epochs == pytest.approx(0.6)
    assert short.param_scheduler[0].min_warmup_iters == 20
    assert cfg.train_cfg.max_epochs == 30
    assert with_epochs(cfg, 30).custom_hooks == cfg.custom_hooks
    hooks = {hook.type for hook in cfg.custom_hooks}
    assert hooks - {hook.type for hook in with_epochs(cfg, 1).custom_hooks} == {'PipelineSwitchHook'}


def test_from_scratch_leaves_nothing_that_is_meant_for_trained_weights():
    dino = read(BASELINES[0])
    cfg = from_scratch(dino)
    backbone = cfg.model.backbone
    assert backbone.init_cfg is None and backbone.frozen_stages == -1 and not backbone.norm_eval
    assert backbone.norm_cfg == dict(type='BN') and cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone == {}
    assert dino.model.backbone.init_cfg.type == 'Pretrained'
    cfg.model.bbox_head.num_classes = 3
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())
    yolo = read(BASELINES[-1])
    assert from_scratch(yolo).model == yolo.model


@pytest.mark.parametrize('call, words', [
    (lambda: under_recipe(read(BASELINES[4]), 'kitti'), 'one of coco, voc, bccd, demo, or a folder'),
    (lambda: under_recipe(read(BASELINES[4]), '.'), 'there is no data set in it'),
    (lambda: under_recipe(read(BASELINES[4]), 'bccd', 'test'), '--split is for data of your own'),
    (lambda: with_epochs(under_recipe(read(BASELINES[4]), 'bccd'), 0), 'positive'),
])
def test_bad_arguments(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_work_dirs_of_data_sets_differ():
    assert default_work_dir('configs/a/b.py', None) == 'work_dirs/b'
    assert default_work_dir('configs/a/b.py', 'bccd') == 'work_dirs/b_bccd'
    assert default_work_dir('b.py', '.') == f'work_dirs/b_{Path().resolve().name}'
    Path('data.yaml').write_text('')
    assert default_work_dir('b.py', 'data.yaml') == f'work_dirs/b_{Path().resolve().name}_data'
