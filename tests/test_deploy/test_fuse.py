"""mmmamba.deploy.fuse: equal outputs, no batch norm left, nothing else changed."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize, prune
from torch.utils._pytree import tree_leaves

from mmmamba.deploy import fuse
from mmmamba.deploy.fused_layers import fuse_layers, unfuse_layers
from mmmamba.errors import InputError
from mmmamba.layers import (
    MLPS,
    SPPF,
    SS2D,
    C2f,
    ConvNormAct,
    EVSSBlock,
    InvertedResidual,
    LayerNorm2d,
    LocalSS2D,
    LocalVSSBlock,
    LSBlock,
    MaskPrototypes,
    ODSSBlock,
    RGBlock,
    SimpleStem,
    VisionClueMerge,
    VSSBlock,
)
from mmmamba.layers.common import ACTIVATIONS

ROOT = Path(__file__).parents[2]
CONFIGS = ('mamba_yolo/mamba-yolo_t_8xb64-300e_coco.py', 'mamba_yolo/mamba-yolo_t_released_8xb64-300e_coco.py',
           'yolov8/yolov8_n_8xb64-300e_coco.py', 'mamba_yolo/mamba-yolo-seg_t_8xb64-300e_coco.py')
CHANNELS = 12
BLOCKS = {
    'conv': partial(ConvNormAct, CHANNELS, 8, 3, 2),
    'conv_bias': partial(ConvNormAct, CHANNELS, 8, bias=True),
    'conv_plain_norm': partial(ConvNormAct, CHANNELS, 8, 3, norm_layer=partial(nn.BatchNorm2d, affine=False)),
    'conv_sync_norm': partial(ConvNormAct, CHANNELS, 8, 3, norm_layer=nn.SyncBatchNorm),
    'stem': partial(SimpleStem, CHANNELS, 8),
    'ls': partial(LSBlock, CHANNELS),
    'merge': partial(VisionClueMerge, CHANNELS, 8),
    'sppf': partial(SPPF, CHANNELS),
    'c2f': partial(C2f, CHANNELS, 8, 2, True),
    'mask_prototypes': partial(MaskPrototypes, CHANNELS, 8),
    **{f'odss_{mlp}': partial(ODSSBlock, CHANNELS, 16, local_spatial=True, mlp=mlp) for mlp in MLPS},
    'evss': partial(EVSSBlock, CHANNELS),
    'inverted_residual': partial(InvertedResidual, CHANNELS),
    'ss2d': partial(SS2D, CHANNELS),
    'ss2d_plain_atrous': partial(SS2D, CHANNELS, act='silu', gated=False, conv_bias=False, pattern='atrous'),
    'local_ss2d': partial(LocalSS2D, CHANNELS, ('h', 'v_flip', 'w2', 'w7_flip'), released_columns=True),
    'local_vss': partial(LocalVSSBlock, CHANNELS, ('h', 'v_flip', 'w2', 'w7_flip')),
    **{f'rg_{act}': partial(RGBlock, CHANNELS, act=act) for act in ACTIVATIONS},
    'vss': partial(VSSBlock, CHANNELS),
    'odss_without_scan': partial(ODSSBlock, CHANNELS, 16, num_ss2d=0),
    'odss_without_mlp': partial(ODSSBlock, CHANNELS, 16, mlp=None),
    'odss_neck': partial(ODSSBlock, CHANNELS, CHANNELS, num_ss2d=2, proj_bias=False),
}


def with_statistics(model: nn.Module) -> nn.Module:
    """The model with statistics, affine parameters and biases as training leaves them, far from 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1, 0.5, generator=generator)
        if isinstance(getattr(module, 'bias', None), nn.Parameter) and not isinstance(module, _BatchNorm):
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    for norm in (module for module in model.modules() if isinstance(module, _BatchNorm)):
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.2, 3, generator=generator)
        if norm.affine:
            nn.init.normal_(norm.weight, 1, 0.5, generator=generator)
            nn.init.normal_(norm.bias, generator=generator)
    return model.eval()


def relative_error(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


def norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize('block', BLOCKS)
@torch.no_grad()
def test_blocks_keep_their_outputs(block):
    model = with_statistics(BLOCKS[block]())
    x = torch.randn(2, CHANNELS, 9, 7)
    expected, before = model(x), {key: value.clone() for key, value in model.state_dict().items()}
    fused = fuse(model)
    assert relative_error(fused(x), expected) < 1e-5
    assert not norms(fused)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert fused.train() is fused and relative_error(fused(x), expected) < 1e-5


@pytest.mark.parametrize('config', CONFIGS)
@torch.no_grad()
def test_whole_detectors_keep_their_outputs(config, mmdet_scope):
    model = with_statistics(MODELS.build(Config.fromfile(ROOT / 'configs' / config).model))
    assert norms(model)
    fused = fuse(model.train())
    assert not norms(fused) and not any(module.training for module in fused.modules())
    model.eval()
    x = torch.rand(1, 3, 97, 64)
    for got, expected in zip(tree_leaves(fused(x)), tree_leaves(model(x))):
        assert relative_error(got, expected) < 1e-5


@pytest.mark.parametrize(('size', 'parameters'), [('n', 3_404_320), ('s', 11_810_560)])
def test_parameters_after_folding_are_the_published_ones(size, parameters, mmdet_scope):
    model = MODELS.build(Config.fromfile(ROOT / f'configs/yolov8/yolov8-seg_{size}_8xb64-300e_coco.py').model)
    assert sum(parameter.numel() for parameter in fuse(model).parameters()) == parameters


def called(model: nn.Module, x: Tensor) -> list[str]:
    """The submodules whose forward hooks one pass calls."""
    names: list[str] = []
    handles = [module.register_forward_hook(lambda *_, name=name: names.append(name))
               for name, module in model.named_modules()]
    model(x)
    for handle in handles:
        handle.remove()
    return names


@torch.no_grad()
def test_layers_change_in_place_and_back():
    model, x = with_statistics(BLOCKS['odss_rg']()), torch.randn(1, CHANNELS, 5, 4)
    plain, weights = called(model, x), dict(model.named_parameters())
    assert {'norm1', 'norm2', 'ss2d.0.out_norm', 'mlp.act'} <= set(plain)
    fuse_layers(model)
    assert not {'norm1', 'norm2', 'ss2d.0.out_norm', 'mlp.act'} & set(called(model, x))
    unfuse_layers(model)
    assert called(model, x) == plain
    assert all(parameter is weights[name] for name, parameter in model.named_parameters())


@pytest.mark.parametrize('block', ['odss_rg', 'vss', 'ss2d_plain_atrous', 'local_ss2d'])
def test_fused_layers_carry_gradients(block):
    model, x = with_statistics(BLOCKS[block]()), torch.randn(1, CHANNELS, 5, 4)
    expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    fuse_layers(model)
    got = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    for one, other in zip(got, expected):
        assert relative_error(one, other) < 1e-4


class OwnSS2D(SS2D):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OwnNorm(LayerNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def double(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return 2 * output


CHANGES: dict[str, Callable[[ODSSBlock | VSSBlock], object]] = {
    'scan': lambda block: set_scan(block, OwnSS2D(CHANNELS)),
    'parametrised scan': lambda block: parametrize.register_parametrization(scan_of(block), 'Ds', Doubled()),
    'batch norm': lambda block: setattr(block, 'norm1', nn.BatchNorm2d(CHANNELS)),
    'own norm': lambda block: setattr(block, 'norm2', OwnNorm(CHANNELS)),
    'no norm': lambda block: setattr(block, 'norm1', nn.Identity()),
    'activation': lambda block: setattr(block.mlp, 'act', nn.Hardswish()),
    'approximate activation': lambda block: setattr(block.mlp, 'act', nn.GELU('tanh')),
    'pruned': lambda block: prune.l1_unstructured(block.mlp.fc1, 'weight', 0.5),
    'hook on a convolution': lambda block: block.mlp.fc1.register_forward_hook(double),
    'hook on the projection': lambda block: scan_of(block).out_proj.register_forward_hook(double),
    'hook on the MLP': lambda block: block.mlp.register_forward_hook(double),
    'hook on the scan': lambda block: scan_of(block).register_forward_hook(double),
    'hook on a norm': lambda block: block.norm2.register_forward_hook(double),
}


def scan_of(block: ODSSBlock | VSSBlock) -> SS2D:
    return block.ss2d[0] if isinstance(block, ODSSBlock) else block.ss2d


def set_scan(block: ODSSBlock | VSSBlock, scan: SS2D) -> None:
    if isinstance(block, ODSSBlock):
        block.ss2d[0] = scan
    else:
        block.ss2d = scan


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('make', [partial(ODSSBlock, CHANNELS, CHANNELS), partial(ODSSBlock, CHANNELS, CHANNELS, 2),
                                  partial(VSSBlock, CHANNELS)], ids=['odss', 'odss of two scans', 'vss'])
@torch.no_grad()
def test_what_somebody_has_changed_still_counts(make, change):
    model, x = make(), torch.randn(2, CHANNELS, 5, 4)
    CHANGES[change](model)
    with_statistics(model)
    expected = model(x)
    fuse_layers(model)
    assert relative_error(model(x), expected) < 1e-5


@pytest.mark.parametrize('make', [partial(ODSSBlock, CHANNELS, CHANNELS), partial(VSSBlock, CHANNELS)])
def test_training_goes_on_as_before(make):
    """As after a validation that was interrupted."""
    model, x = make(drop_path=0.5).train(), torch.randn(64, CHANNELS, 2, 2)
    fuse_layers(model)
    torch.manual_seed(1)
    got = model(x)
    unfuse_layers(model)
    torch.manual_seed(1)
    torch.testing.assert_close(got, model(x))


@torch.no_grad()
def test_fusing_twice_changes_nothing():
    once = fuse(with_statistics(BLOCKS['c2f']()))
    twice = fuse(once)
    assert once.state_dict().keys() == twice.state_dict().keys()
    assert all(torch.equal(value, twice.state_dict()[key]) for key, value in once.state_dict().items())


@torch.no_grad()
def test_layers_of_others_and_other_norms_are_left_alone():
    def make_norm(channels: int) -> nn.Module:
        return nn.GroupNorm(2, channels)

    others = nn.Sequential(nn.Conv2d(CHANNELS, 4, 1), nn.BatchNorm2d(4))
    model = with_statistics(nn.Sequential(ConvNormAct(CHANNELS, CHANNELS, norm_layer=make_norm), others))
    fused = fuse(model)
    assert isinstance(fused[0].norm, nn.GroupNorm) and isinstance(fused[1][1], nn.BatchNorm2d)
    x = torch.randn(1, CHANNELS, 5, 4)
    torch.testing.assert_close(fused(x), model(x))


def test_convolutions_become_channels_last_and_keep_their_dtype_and_gradients():
    model = ConvNormAct(4, 8, 3).double()
    fused = fuse(model)
    assert fused.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert {p.dtype for p in fused.parameters()} == {torch.float64}
    assert fused.conv.weight.requires_grad and fused.conv.bias.requires_grad
    frozen = fuse(model.requires_grad_(False))
    assert not frozen.conv.bias.requires_grad


def test_what_cannot_be_folded_is_named():
    without_statistics = partial(nn.BatchNorm2d, track_running_stats=False)
    with pytest.raises(InputError, match='1.conv1: a batch norm without running statistics'):
        fuse(nn.Sequential(nn.Identity(), SimpleStem(3, 8, norm_layer=without_statistics)))


@torch.no_grad()
def test_fused_blocks_compile_as_one_graph():
    torch.compiler.reset()
    fused = fuse(with_statistics(BLOCKS['odss_rg']()))
    x = torch.randn(2, CHANNELS, 9, 7)
    torch.testing.assert_close(torch.compile(fused, fullgraph=True, backend='aot_eager')(x), fused(x))


@pytest.mark.needs_torch('2.11', 'exports a scan')
@torch.no_grad()
def test_fused_blocks_export():
    fused = fuse(with_statistics(BLOCKS['odss_rg']()))
    x = torch.randn(2, CHANNELS, 9, 7)
    torch.testing.assert_close(torch.export.export(fused, (x, )).module()(x), fused(x))
