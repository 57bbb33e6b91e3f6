"""Every config builds: model, optimizer with its parameter groups, hooks, samplers' names and each transform.

And a model of every kind trains and predicts on photographs, made small for the sake of time.
"""
from __future__ import annotations

import argparse
import copy
import inspect
import json
import os
import re
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch
from composed_instances import compose_instances
from mmcv.transforms import Compose
from mmdet.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, PARAM_SCHEDULERS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from torch import nn

pytestmark = pytest.mark.usefixtures('mmdet_scope')
ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
NAMES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.glob('[!_]*/**/*.py'))
assert NAMES


def preference(name: str) -> tuple[bool, ...]:
    """Higher for the smallest size, where sizes are called T or N, for COCO, and for what a paper describes."""
    return bool(re.search('[-_][nt]_', name)), name.endswith('_coco.py'), '_released_' not in name


def kind(name: str) -> tuple[str, ...]:
    """What two configs that train alike have in common; they differ in sizes, data sets or schedules.

    An ablation is of a kind of its own if it changes the blocks; other numbers of them are sizes.
    """
    path = Path(name)
    detector, variant = path.stem.split('_')[0], path.stem.split('_', 2)[-1].split('_')[0]
    if path.parent.name != 'ablation':
        variant = 'released' if '_released_' in name else 'plain' if '_simple-pyramid_' in name else ''
    elif variant.startswith('blocks-'):
        variant = 'blocks'
    return str(path.parent), detector, variant


KINDS = {kind(name): name for name in sorted(NAMES, key=preference)}
# What is read of images and annotations depends on the detector alone.
DETECTORS = {kind(name)[1]: name for name in sorted(
    KINDS.values(), key=lambda name: ('/ablation/' not in name, preference(name)))}
WITH_PUBLISHED_RECIPE = [name for name in NAMES if re.fullmatch(
    '(efficient_vmamba|mamba_vision|vmamba)/.*_coco.py|local_mamba/.*-vmamba-.*', name)]
# The reference's dtype, where it trains in mixed precision.
DTYPES = {'efficient_vmamba': 'float16', 'local_mamba': 'float16', 'mamba_vision': 'float16', 'vmamba': None}
DROP_PATHS = {
    'efficient_vmamba': {'t': 0.1, 's': 0.1, 'b': 0.1},
    'local_mamba': {'t': 0.2, 's': 0.2},
    'mamba_vision': {'t': 0.2, 's': 0.3, 'b': 0.5},
    'vmamba': {'t': 0.2, 't_s2l5': 0.2, 's': 0.3, 's_s2l15': 0.3, 'b': 0.5, 'b_s2l15': 0.6},
}
ODMAMBA_IN_MMDET = [name for name in NAMES if re.fullmatch('od_mamba/.*_coco.py', name)]
FRUITS_AND_NUTS = Path(os.environ.get('FRUITS_NUTS', ROOT.parent / 'shared/data/fruits_nuts'))

NORMS = nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm

IMAGE_SIZE = (96, 64)  # width and height
QUERIES = 32  # of a DETR, fewer than tokens, of which two-stage ones choose them
ROIS = 8  # of an image, instead of the hundreds that two-stage detectors sample
WINDOW_SIZES = (4, 2)  # of MambaVision: one window of its own, padded, has the tokens of an image of 1792 x 1792


@cache
def _read(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


def read(name: str) -> Config:
    """A config; mmengine takes seconds for one that inherits from mmdet, so each is read once."""
    return copy.deepcopy(_read(name))


def datasets(cfg: dict):
    """A data set's config and those inside of it."""
    yield cfg
    for inner in [cfg['dataset']] if 'dataset' in cfg else cfg.get('datasets', []):
        yield from datasets(inner)


@pytest.mark.parametrize('name', NAMES)
def test_config_builds(name):
    cfg = read(name)
    DetLocalVisualizer.get_instance('configs')  # the visualisation hook asks for the current one
    # mmdet's Swin asks for values while it is built, and has to be made for real.
    with nullcontext() if cfg.model.backbone.type == 'SwinTransformer' else torch.device('meta'):
        model = MODELS.build(cfg.model)
    if name not in KINDS.values():  # those compute for real, below
        device = next(model.backbone.parameters()).device
        with torch.no_grad(), device:
            model.eval().extract_feat(torch.zeros(1, 3, 64, 64))
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    grouped = [parameter for group in wrapper.optimizer.param_groups for parameter in group['params']]
    assert len(grouped) == sum(parameter.requires_grad for parameter in model.parameters())

    hooks = [HOOKS.build({key: value for key, value in hook.items() if key != 'priority'})  # which is the runner's
             for hook in (*cfg.default_hooks.values(), *cfg.get('custom_hooks', []))]
    schedulers = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
    assert all(PARAM_SCHEDULERS.get(scheduler['type']) for scheduler in schedulers)
    switches = [hook for hook in hooks if type(hook).__name__ == 'PipelineSwitchHook']
    assert all(0 < hook.switch_epoch < cfg.train_cfg.max_epochs for hook in switches)
    for hook in switches:
        Compose(hook.switch_pipeline)

    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert DATA_SAMPLERS.get(loader.sampler.type)
        for dataset in datasets(loader.dataset):
            assert DATASETS.get(dataset['type'])
            assert Compose(dataset.get('pipeline', [])) is not None
    assert METRICS.get(cfg.val_evaluator.type) and METRICS.get(cfg.test_evaluator.type)
    if 'tta_pipeline' in cfg:
        Compose(cfg.tta_pipeline)
        MODELS.build(dict(**cfg.tta_model, module=model))


@pytest.fixture(scope='module')
def composed(tmp_path_factory) -> Path:
    return compose_instances(tmp_path_factory.mktemp('instances') / 'data', images=2, size=(256, 192))


@pytest.mark.parametrize('name', KINDS.values())
def test_config_trains_and_predicts(name, composed):
    check_model(read(name), composed / 'annotations/train.json', composed / 'train')


@pytest.mark.skipif(not FRUITS_AND_NUTS.is_dir(), reason=f'needs {FRUITS_AND_NUTS}')
@pytest.mark.parametrize('name', DETECTORS.values())
def test_config_trains_and_predicts_on_photographed_objects(name):
    annotations = FRUITS_AND_NUTS / 'annotations/instances_train.json'
    check_model(read(name), annotations, FRUITS_AND_NUTS / 'images')


def check_model(cfg: Config, annotations: Path, images: Path) -> None:
    """Two steps of the config's optimizer on a batch of two, with a gradient in every parameter, then a prediction.

    Of the backbone's gradients at least one is not zero.
    """
    torch.manual_seed(0)
    with_mask = 'segm' in cfg.val_evaluator.get('metric', ())
    batch = load_batch(annotations, images, IMAGE_SIZE, with_mask)
    cfg.model.backbone.pop('init_cfg', None)  # its weights are elsewhere
    cfg.model.data_preprocessor.pop('batch_augments', None)  # YOLOX's sizes ask the runner for the iteration
    if cfg.model.data_preprocessor.get('pad_size_divisor', 1) > 32:
        cfg.model.data_preprocessor.pad_size_divisor = 32  # Vim's pads to 1024 x 1024
    if 'window_sizes' in inspect.signature(MODELS.get(cfg.model.backbone.type)).parameters:
        cfg.model.backbone.window_sizes = WINDOW_SIZES
    if 'dtype' in cfg.optim_wrapper and 'Shared4Conv1FCBBoxHead' in str(cfg.model.get('roi_head')):
        # A minute on CPUs; Mask R-CNN trains in mixed precision with other heads.
        cfg.optim_wrapper.pop('dtype')
        cfg.optim_wrapper.type = 'OptimWrapper'
    elif 'dtype' in cfg.optim_wrapper:
        cfg.optim_wrapper.dtype = 'bfloat16'  # CPUs have no arithmetic for float16
    if 'num_queries' in cfg.model:
        cfg.model.num_queries = QUERIES
    if 'roi_head' in cfg.model:
        cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.test_cfg.rpn.max_per_img = ROIS
        stages = cfg.model.train_cfg.rcnn
        for stage in stages if isinstance(stages, list) else [stages]:  # a cascade has several
            stage.sampler.num = ROIS
    for test_cfg in (cfg.model.test_cfg, cfg.model.test_cfg.get('rcnn', ConfigDict())):
        test_cfg.update(score_thr=0.0, max_per_img=10)  # what has not learnt finds something all the same
    model = MODELS.build(cfg.model)
    model.init_weights()

    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    without_gradient, without_finite_gradient, with_nonzero_gradient = set(), set(), set()

    def look_at_gradients(*_) -> None:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.grad is None:
                without_gradient.add(name)
            elif parameter.requires_grad and not parameter.grad.isfinite().all():
                without_finite_gradient.add(name)
            elif parameter.requires_grad and parameter.grad.any():
                with_nonzero_gradient.add(name)

    wrapper.optimizer.register_step_pre_hook(look_at_gradients)
    model.train()
    for _ in range(2):
        losses = model.train_step(batch, wrapper)
        assert all(loss.isfinite() for loss in losses.values()), losses
    assert not without_gradient and not without_finite_gradient
    assert any(name.startswith('backbone.') for name in with_nonzero_gradient)

    model.eval()
    with torch.no_grad():
        results = model.test_step(batch)
    assert len(results) == 2
    for result in results:
        check_result(result, with_mask)


def load_batch(annotations: Path, images: Path, size: tuple[int, int], with_mask: bool) -> dict:
    """The first two images of a data set, of that width and height, as a data loader would give them."""
    dataset = DATASETS.build(dict(
        type='CocoDataset',
        ann_file=str(annotations),
        data_prefix=dict(img=f'{images}/'),
        metainfo=dict(classes=[item['name'] for item in json.loads(annotations.read_text())['categories']]),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=with_mask),
            dict(type='Resize', scale=size),
            dict(type='PackDetInputs'),
        ]))
    return pseudo_collate([dataset[0], dataset[1]])


def check_result(result: DetDataSample, with_mask: bool) -> None:
    """Boxes, scores and labels, and masks of a model that has them: some, finite, inside the image."""
    height, width = result.ori_shape
    found = result.pred_instances
    assert set(found.keys()) == {'bboxes', 'scores', 'labels'} | ({'masks'} if with_mask else set())
    assert found.bboxes.shape == (len(found), 4) and found.scores.shape == found.labels.shape == (len(found),)
    assert len(found) > 0 and found.bboxes.isfinite().all() and found.scores.isfinite().all()
    corners = found.bboxes.reshape(-1, 2, 2)
    assert (corners[:, 0] <= corners[:, 1]).all() and (found.scores >= 0).all() and (found.labels >= 0).all()
    assert (corners >= 0).all() and (corners <= 1e-3 + corners.new_tensor([width, height])).all()
    if with_mask:
        assert found.masks.shape == (len(found), height, width) and found.masks.dtype == torch.bool


def parameters_and_groups(cfg: Config) -> tuple[nn.Module, dict[nn.Parameter, dict]]:
    """A config's model, without memory, and the optimizer's group of each parameter."""
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    return model, {parameter: group for group in groups for parameter in group['params']}


@pytest.mark.parametrize('name', ODMAMBA_IN_MMDET)
def test_time_scales_of_scans_do_not_decay_and_no_rate_is_for_trained_weights(name):
    cfg = read(name)
    model, group_of = parameters_and_groups(cfg)
    scan = re.compile(r'\.(A_logs|Ds|dt_projs_bias)$')
    decays = {name: group_of[parameter]['weight_decay'] for name, parameter in model.backbone.named_parameters()}
    assert not any(decay for name, decay in decays.items() if scan.search(name))
    assert all(decay for name, decay in decays.items() if name.endswith('dt_projs_weight'))
    assert {group_of[parameter]['lr'] for parameter in model.backbone.parameters()} == {cfg.optim_wrapper.optimizer.lr}
    if 'flat_decay_mult' in cfg.optim_wrapper.paramwise_cfg:
        assert not any(group_of[parameter]['weight_decay'] for parameter in model.parameters() if parameter.ndim < 2)


@pytest.mark.parametrize('name', WITH_PUBLISHED_RECIPE)
def test_recipe_beside_published_ap_is_the_published_one(name):
    cfg = read(name)
    family, epochs = Path(name).parts[0], 36 if '-3x_' in name else 12
    assert cfg.optim_wrapper.get('dtype') == DTYPES[family]
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)
    assert cfg.train_cfg.max_epochs == epochs
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.type, warm_up.end, warm_up.by_epoch) == ('LinearLR', 1000, False)
    assert (steps.end, steps.milestones) == (epochs, [27, 33] if epochs == 36 else [8, 11])
    assert cfg.model.backbone.drop_path_rate == DROP_PATHS[family][cfg.model.backbone.arch]
    assert cfg.auto_scale_lr.base_batch_size == 16 and cfg.train_dataloader.batch_size == 2

    model, group_of = parameters_and_groups(cfg)
    norms = [module for module in model.modules() if isinstance(module, NORMS)]
    scans = [parameter for name, parameter in model.named_parameters() if re.search(r'\.A_logs?$', name)]
    trained = [parameter for norm in norms for parameter in norm.parameters() if parameter.requires_grad]
    assert trained and {group_of[parameter]['weight_decay'] for parameter in trained} == {0.0}
    assert scans and {group_of[parameter]['weight_decay'] for parameter in scans} == {0.05}


@pytest.mark.parametrize('name', [name for name in NAMES if re.match('vim/|local_mamba/.*-vim-', name)])
def test_recipe_of_plain_backbones_is_the_published_one(name):
    cfg = read(name)
    arch, local = cfg.model.backbone.arch, cfg.model.backbone.type == 'LocalVim'
    decay = 0.05 if local else 0.1
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=decay)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == 64
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.end) == ('LinearLR', 0.001, 250)
    assert (cfg.train_cfg.max_iters, steps.end, steps.milestones) == (184_375, 184_375, [163_889, 177_546])
    assert not warm_up.by_epoch and not steps.by_epoch and cfg.train_dataloader.sampler.type == 'InfiniteSampler'
    assert (cfg.model.backbone.img_size, cfg.model.backbone.drop_path_rate) == (1024, 0.1)

    model, group_of = parameters_and_groups(cfg)
    norms = [module for module in model.modules() if isinstance(module, (*NORMS, nn.RMSNorm))]
    without_decay = {model.backbone.stem.pos_embed, *(parameter for norm in norms for parameter in norm.parameters())}
    rate = 0.7 if local else {'ti': 0.837, 's': 0.837, 'b': 0.7}[arch]
    last = model.backbone.depth + 1
    for name, parameter in model.named_parameters():
        layer = last
        if name.startswith('backbone.stem.'):
            layer = 0
        elif name.startswith('backbone.blocks.') and not local:
            layer = int(name.split('.')[2]) + 1
        assert group_of[parameter]['lr'] == pytest.approx(1e-4 * rate**(last - layer)), name
        assert group_of[parameter]['weight_decay'] == (0 if parameter in without_decay else decay), name


@pytest.mark.parametrize('name', [name for name in NAMES if not name.endswith(('_demo.py', '_fruits-nuts.py'))])
def test_learning_rate_is_scaled_from_the_batch_in_the_name(name):
    cfg = read(name)
    stated = re.search(r'_(\d+)xb(\d+)[-_]', name)
    gpus, batch = map(int, stated.groups()) if stated else (8, 2)  # mmdet's 1x and 3x
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert cfg.train_dataloader.batch_size == batch


def test_the_backbone_starts_from_a_trained_mamba_yolo(tmp_path):
    trained = MODELS.build(Config.fromfile(CONFIGS / 'mamba_yolo/mamba-yolo_t_8xb64-300e_coco.py').model)
    torch.save(trained.state_dict(), tmp_path / 'trained.pth')
    cfg = Config.fromfile(CONFIGS / 'od_mamba/mask-rcnn_od-mamba-t_fpn_1x_coco.py').model
    checkpoint = str(tmp_path / 'trained.pth')
    cfg.backbone.init_cfg = dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
    model = MODELS.build(cfg)
    model.init_weights()
    started = model.backbone.state_dict()
    assert started.keys() == trained.backbone.state_dict().keys()
    assert all(torch.equal(started[name], value) for name, value in trained.backbone.state_dict().items())
    modules = (*trained.backbone.modules(), *model.backbone.modules())
    norms = [module for module in modules if hasattr(module, 'momentum')]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.03)}


@pytest.mark.parametrize('name', [
    'efficient_vmamba/mask-rcnn_efficient-vmamba-t_fpn_amp-1x_coco.py',
    'efficient_vmamba/retinanet_efficient-vmamba-t_fpn_amp-1x_coco.py',
    'mamba_vision/mask-rcnn_mamba-vision-t_fpn_amp-ms-crop-1x_coco.py',
    'local_mamba/mask-rcnn_local-vim-s_simple-pyramid_8xb8-lsj-100e_coco.py',
    'local_mamba/mask-rcnn_local-vmamba-t_fpn_amp-1x_coco.py',
    'vim/cascade-mask-rcnn_vim-ti_simple-pyramid_8xb8-lsj-100e_coco.py',
    'mamba_vision/cascade-mask-rcnn_mamba-vision-t_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py',
])
def test_weights_are_named_on_the_command_line(name, tmp_path):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args([
        '--cfg-options', 'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={tmp_path / "weights.pth"}'])
    cfg = read(name)
    trained = MODELS.build(cfg.model.backbone)
    torch.save(trained.state_dict(), tmp_path / 'weights.pth')
    cfg.merge_from_dict(args.cfg_options)
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize('name', [name for name in KINDS.values() if name.endswith('_coco.py')])
def test_data_root_is_settable_by_the_environment(name, monkeypatch):
    monkeypatch.setenv('COCO', '/somewhere')
    cfg = Config.fromfile(CONFIGS / name)  # not `read`, which remembers what it has read
    assert cfg.custom_imports.imports == ['mmmamba']
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        files = [dataset for dataset in datasets(loader.dataset) if 'ann_file' in dataset]
        assert [dataset['data_root'] for dataset in files] == ['/somewhere']
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.ann_file == '/somewhere/annotations/instances_val2017.json'


@pytest.mark.parametrize('root', [None, 'data/coco', 'data/coco/'])
def test_path_of_annotations_has_single_slashes(root, monkeypatch):
    monkeypatch.delenv('COCO', raising=False)
    if root:
        monkeypatch.setenv('COCO', root)
    cfg = Config.fromfile(CONFIGS / '_base_/coco_in_mmdet.py')
    assert cfg.coco_dataloader.dataset.data_root == 'data/coco'
    assert cfg.coco_evaluator.ann_file == 'data/coco/annotations/instances_val2017.json'
