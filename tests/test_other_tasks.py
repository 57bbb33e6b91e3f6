"""The examples of docs/mixing.md: our backbones in mmsegmentation and mmpretrain, where these are installed."""
from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData

import mmmamba  # noqa: F401  (registers the models, and comes before what imports mmcv)

DOCUMENT = Path(__file__).parents[1] / 'docs/mixing.md'


def model_of(title: str, package: str) -> torch.nn.Module:
    """The model of the block of the document that begins so, as the package's runner would build it."""
    try:
        importlib.import_module(f'{package}.models')
    except ImportError as error:
        pytest.skip(f'{package} cannot be imported: {error}')
    text = re.search(rf'```python\n(# {title}.*?)```', DOCUMENT.read_text(), re.DOTALL)[1]
    config = Config.fromstring(text.replace("'SyncBN'", "'BN'"), '.py').model
    for head in (config.get('decode_head'), config.get('auxiliary_head')):
        if head:
            head.channels = 16  # for the time that the test takes
    init_default_scope(package)
    return MODELS.build(config)


@pytest.fixture(autouse=True)
def scope_of_mmdet():
    yield
    init_default_scope('mmdet')


def assert_trains(model: torch.nn.Module, losses: dict[str, torch.Tensor]) -> None:
    total, _ = model.parse_losses(losses)
    total.backward()
    for name, parameter in model.backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert next(model.backbone.parameters()).grad.abs().max() > 0


def test_semantic_segmentation():
    model = model_of('Semantic segmentation', 'mmseg')
    from mmseg.structures import SegDataSample
    size = (64, 96)
    model.data_preprocessor.size = size
    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(150, (1, *size))),
                             metainfo=dict(img_shape=size, ori_shape=size)) for _ in range(2)]
    data = model.data_preprocessor(dict(inputs=list(torch.randint(256, (2, 3, *size))), data_samples=samples), True)
    assert_trains(model, model(**data, mode='loss'))
    assert model.eval()(data['inputs'], mode='tensor').shape == (2, 150, 16, 24)


def test_classification():
    model = model_of('Classification', 'mmpretrain')
    from mmpretrain.structures import DataSample
    samples = [DataSample().set_gt_label(label) for label in (3, 998)]
    assert_trains(model, model(torch.rand(2, 3, 64, 64), samples, mode='loss'))
    assert model.eval()(torch.rand(2, 3, 96, 64), mode='tensor').shape[0] == 2
