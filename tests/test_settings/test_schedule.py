"""The length of a training and what follows from it."""
from __future__ import annotations

import pytest
import torch
from mmdet.registry import PARAM_SCHEDULERS
from mmengine.config import Config
from mmengine.registry import build_from_cfg
from recipes_of_configs import ONE_OF_EACH, read

from mmmamba.errors import InputError
from mmmamba.settings import with_early_stopping, with_epochs, with_learning_rate

pytestmark = pytest.mark.usefixtures('mmdet_scope')
EPOCH = 7  # iterations


def schedulers(cfg: Config) -> list:
    given = cfg.param_scheduler
    return given if isinstance(given, list) else [given]


def rates(cfg: Config) -> list[float]:
    """The learning rate of each epoch, by the schedules alone."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    built = []
    for given in schedulers(cfg):
        settings = {key: value for key, value in given.items() if key not in ('_scope_', 'convert_to_iter_based')}
        kind = PARAM_SCHEDULERS.get(settings['type'])
        if 'Momentum' in settings['type']:
            continue
        if given.get('convert_to_iter_based'):
            settings.pop('type')
            settings.setdefault('end', cfg.train_cfg.max_epochs)
            built.append(kind.build_iter_from_epoch(optimizer=optimizer, epoch_length=EPOCH, **settings))
        else:
            built.append(build_from_cfg(settings, PARAM_SCHEDULERS, dict(optimizer=optimizer)))
    found = []
    for iteration in range(cfg.train_cfg.max_epochs * EPOCH):
        if iteration % EPOCH == EPOCH - 1:
            found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in built:
            if not scheduler.by_epoch or iteration % EPOCH == EPOCH - 1:
                scheduler.step()
    return found


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_every_recipe_takes_another_length(name):
    cfg = read(name)
    before = cfg.to_dict()
    for epochs in (1, 2, 10, 700):
        other = with_epochs(cfg, epochs)
        assert other.train_cfg.type == 'EpochBasedTrainLoop' and other.train_cfg.max_epochs == epochs
        assert 'max_iters' not in other.train_cfg and other.train_cfg.val_interval <= epochs
        for hook in other.get('custom_hooks', []):
            assert hook.type != 'PipelineSwitchHook' or 0 < hook.switch_epoch < epochs
    # The rate falls at the end, to what it falls to in the whole recipe, and is highest somewhere before.
    short = rates(with_epochs(cfg, 10))
    assert len(short) == 10 and short[-1] <= 0.3 * max(short)
    assert cfg.to_dict() == before
    if 'max_epochs' in cfg.train_cfg:
        assert with_epochs(cfg, cfg.train_cfg.max_epochs).to_dict() == before


def test_mosaic_warm_up_and_averages_follow():
    cfg = with_epochs(read('mamba_yolo/mamba-yolo_t_8xb64-300e_coco'), 30)
    hooks = {hook.type: hook for hook in cfg.custom_hooks}
    assert hooks['PipelineSwitchHook'].switch_epoch == 29
    assert hooks['EMAHook'].momentum == pytest.approx(1e-3) and hooks['EMAHook'].gamma == 200
    assert cfg.max_epochs == 30 and cfg.param_scheduler[0].warmup_epochs == pytest.approx(0.3)
    longer = with_epochs(read('mamba_yolo/mamba-yolo_t_1xb16-30e_bccd'), 300)
    assert longer.param_scheduler[0].warmup_epochs == 3


def test_other_recipes_follow():
    cfg = with_epochs(read('yolox/yolox_s_8xb8-300e_coco'), 10)
    assert [(one.begin, one.end) for one in cfg.param_scheduler] == [(0, 1), (1, 9), (9, 10)]
    assert {hook.type: hook for hook in cfg.custom_hooks}['YOLOXModeSwitchHook'].num_last_epochs == 1
    cfg = with_epochs(read('rtmdet/rtmdet_tiny_8xb32-300e_coco'), 30)
    assert cfg.train_cfg.dynamic_intervals == [(28, 1)] and cfg.param_scheduler[1].begin == 15
    cfg = with_epochs(read('vmamba/mask-rcnn_vmamba-t_fpn_ms-crop-3x_coco'), 12)
    assert cfg.param_scheduler[1].milestones == [9, 11] and cfg.param_scheduler[0].end == 333
    cfg = with_epochs(read('vim/cascade-mask-rcnn_vim-ti_simple-pyramid_8xb8-lsj-100e_coco'), 50)
    assert cfg.param_scheduler[1].milestones == [44, 48] and cfg.param_scheduler[1].by_epoch
    assert (cfg.train_dataloader.sampler.type, cfg.train_dataloader.sampler.shuffle) == ('DefaultSampler', True)
    assert cfg.default_hooks.checkpoint.by_epoch and cfg.log_processor.by_epoch


def test_a_learning_rate_takes_the_least_rate_along():
    cfg = with_learning_rate(read('yolox/yolox_s_8xb8-300e_coco'), 0.001)
    assert cfg.optim_wrapper.optimizer.lr == 0.001 and cfg.param_scheduler[1].eta_min == pytest.approx(0.00005)
    with pytest.raises(InputError, match='positive'):
        with_learning_rate(cfg, 0)
    with pytest.raises(InputError, match=r'no optim_wrapper.optimizer.lr'):
        with_learning_rate(Config({}), 0.1)


@pytest.mark.parametrize('name, monitor', [
    ('mamba_yolo/mamba-yolo-seg_t_8xb64-300e_coco', 'coco/bbox_mAP'),
    ('mamba_yolo/mamba-yolo_t_8xb64-300e_voc', 'pascal_voc/mAP'),
    ('dino/dino-4scale_r50_8xb2-12e_coco', 'coco/bbox_mAP'),
])
def test_training_stops_early_by_the_ap_of_boxes(name, monitor):
    cfg = with_early_stopping(with_early_stopping(read(name), 9), 3)
    hook, = (hook for hook in cfg.custom_hooks if hook.type == 'EarlyStoppingHook')
    assert hook.monitor == monitor and hook.patience == 3 and hook.rule == 'greater'


@pytest.mark.parametrize('call, words', [
    (lambda: with_epochs(read(ONE_OF_EACH[0]), 0), 'positive'),
    (lambda: with_epochs(Config({}), 1), 'no train_cfg'),
    (lambda: with_early_stopping(read(ONE_OF_EACH[0]), 0), 'at least one validation'),
    (lambda: with_early_stopping(Config({}), 1), 'needs a CocoMetric'),
])
def test_bad_arguments(call, words):
    with pytest.raises(InputError, match=words):
        call()
