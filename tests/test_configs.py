"""Every config builds: model, optimizer with its parameter groups, hooks, samplers' names and each transform."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, PARAM_SCHEDULERS
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

pytestmark = pytest.mark.usefixtures('mmdet_scope')
CONFIGS = Path(__file__).parents[1] / 'configs'
NAMES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.glob('[!_]*/*.py'))


def datasets(cfg: dict):
    """A data set's config and those inside of it."""
    yield cfg
    for inner in [cfg['dataset']] if 'dataset' in cfg else cfg.get('datasets', []):
        yield from datasets(inner)


@pytest.mark.parametrize('name', NAMES)
def test_config_builds(name):
    cfg = Config.fromfile(CONFIGS / name)
    DetLocalVisualizer.get_instance('configs')  # the visualisation hook asks for the current one
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    grouped = [parameter for group in wrapper.optimizer.param_groups for parameter in group['params']]
    assert len(grouped) == sum(parameter.requires_grad for parameter in model.parameters())

    hooks = [HOOKS.build(hook) for hook in (*cfg.default_hooks.values(), *cfg.get('custom_hooks', []))]
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


def test_a_size_of_each_kind_is_there():
    assert len(NAMES) >= 12 + 10 + 3 + 1
