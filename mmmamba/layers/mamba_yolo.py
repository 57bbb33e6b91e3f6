"""Mamba YOLO (arXiv 2406.05835): the ODSS block, its parts, and the layers between the stages."""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmamba.errors import InputError
from mmmamba.layers.common import (
    YOLO_BATCH_NORM,
    ConvNormAct,
    DropPath,
    LayerNorm2d,
    Mlp,
    NormLayer,
    build_activation,
    join_squares,
    recomputed,
    replaced,
)
from mmmamba.layers.ss2d import SS2D


class SimpleStem(nn.Module):
    """Two 3x3 convolutions of stride 2 instead of non-overlapping patches (Mamba YOLO, 'Simple Stem').

    Args:
        in_channels: Channels of the image.
        out_channels: C; the first convolution has half of them.
        norm_layer: Makes the normalisations.

    Shape:
        (B, in_channels, H, W) to (B, C, ceil(H / 4), ceil(W / 4)).
    """

    def __init__(self, in_channels: int, out_channels: int, norm_layer: NormLayer = YOLO_BATCH_NORM) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.conv1 = ConvNormAct(in_channels, hidden, 3, 2, norm_layer=norm_layer, act_layer=nn.GELU)
        self.conv2 = ConvNormAct(hidden, out_channels, 3, 2, norm_layer=norm_layer, act_layer=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class VisionClueMerge(nn.Module):
    """Halves a map without losing a pixel: the four of each 2x2 square on the channels, then a 1x1 convolution.

    (Mamba YOLO, "Vision Clue Merge".) An odd side is padded with zeros at the bottom or right.

    Args:
        in_channels: C of the input.
        out_channels: C' of the output.
        norm_layer: Makes the normalisation.

    Shape:
        (B, C, H, W) to (B, C', ceil(H / 2), ceil(W / 2)).
    """

    def __init__(self, in_channels: int, out_channels: int, norm_layer: NormLayer = YOLO_BATCH_NORM) -> None:
        super().__init__()
        self.proj = ConvNormAct(4 * in_channels, out_channels, bias=True, norm_layer=norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(join_squares(x))


class LSBlock(nn.Module):
    """Local spatial block (Mamba YOLO, 'LocalSpatial Block'): ``x + fc2(gelu(fc1(norm(dwconv(x)))))``.

    Args:
        channels: C of the input and the output.
        norm_layer: Makes the normalisation after the depthwise convolution.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, norm_layer: NormLayer = YOLO_BATCH_NORM) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = norm_layer(channels)
        self.fc1 = nn.Conv2d(channels, channels, 1)
        self.fc2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.gelu(self.fc1(self.norm(self.dwconv(x)))))


class RGBlock(nn.Module):
    """Residual gated block (Mamba YOLO, 'RG Block')::

        x, v = split(fc1(input))
        out  = fc2(act(dwconv(x) + x) · v)

    Args:
        channels: C of the input and the output.
        mlp_ratio: A plain MLP of this ratio has as many weights: each branch has ``int(2 / 3 · mlp_ratio · C)``.
        act: Activation of the gate: ``'gelu'``, ``'silu'`` or ``'relu'``.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, mlp_ratio: float = 4.0, act: str = 'gelu') -> None:
        super().__init__()
        hidden = int(2 * int(channels * mlp_ratio) / 3)
        self.fc1 = nn.Conv2d(channels, 2 * hidden, 1)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = build_activation(act)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, v = self.fc1(x).chunk(2, dim=1)
        return recomputed(
            lambda x, v: self.fc2(self.act(self.dwconv(x) + x) * v), x, v, random=replaced(self.dwconv, self.fc2))


class ConvMlp(nn.Module):
    """``fc2(act(dwconv(fc1(x))))``: :class:`Mlp`, of the same arguments, with a depthwise 3x3 convolution inside."""

    def __init__(self, channels: int, mlp_ratio: float = 4.0, act: str = 'gelu') -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = build_activation(act)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class ResConvMlp(nn.Module):
    """``fc2(act(dwconv(h) + h))`` with ``h = fc1(x)``: :class:`ConvMlp` with the convolution as a residual."""

    def __init__(self, channels: int, mlp_ratio: float = 4.0, act: str = 'gelu') -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = build_activation(act)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(self.act(self.dwconv(x) + x))


class GatedMlp(nn.Module):
    """``fc2(act(x) · v)`` with ``x, v = split(fc1(input))``: the RG block without its convolution."""

    def __init__(self, channels: int, mlp_ratio: float = 4.0, act: str = 'gelu') -> None:
        super().__init__()
        hidden = int(2 * int(channels * mlp_ratio) / 3)
        self.fc1 = nn.Conv2d(channels, 2 * hidden, 1)
        self.act = build_activation(act)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, v = self.fc1(x).chunk(2, dim=1)
        return self.fc2(self.act(x) * v)


MLPS: dict[str, type[nn.Module]] = {
    'rg': RGBlock,
    'mlp': Mlp,
    'conv': ConvMlp,
    'res_conv': ResConvMlp,
    'gated': GatedMlp,
}
"""Rows of table 3, by the name a config gives them."""


class ODSSBlock(nn.Module):
    """Object detection state space block (Mamba YOLO, 'ODSSBlock')::

        x = in_proj(x)
        x = x + DropPath(SS2D(LN(LSBlock(x))))        without the LSBlock where local_spatial is False
        x = x + DropPath(RGBlock(LN(x)))

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        num_ss2d: SS2D in sequence, nothing between them (the neck's blocks have several in the larger models). 0
            leaves the branch out (the paper's table 2).
        proj_bias: True gives the backbone's input projection: always there, its convolution with a bias. False gives
            the neck's: no bias, and only where the number of channels changes.
        local_spatial: Whether the LSBlock comes before the scan (it does in the ``released`` models).
        mlp: ``'rg'`` for the RG block, or a row of the paper's table 3: ``'mlp'``, ``'conv'``, ``'res_conv'``,
            ``'gated'``. None leaves the branch out (table 2).
        gate_act: Activation inside the MLP: ``'gelu'``, ``'silu'`` or ``'relu'``.
        ssm_init: ``'mamba_yolo'`` or ``'mamba'``.
        patterns: Of each SS2D, see :class:`SS2D`; None for ``'cross'``.
        drop_path: Probability of dropping a residual branch.
        with_cp: Recompute the scan and the MLP in the backward pass, rather than keep their activations.
        norm_layer: Makes the normalisations after convolutions.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H, W).

    Raises:
        InputError: An ``mlp`` or another name that there is not, a negative ``num_ss2d``, not as many ``patterns``, or
            ``local_spatial`` without a scan after it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_ss2d: int = 1,
        proj_bias: bool = True,
        local_spatial: bool = False,
        mlp: str | None = 'rg',
        gate_act: str = 'gelu',
        ssm_init: str = 'mamba_yolo',
        patterns: Sequence[str | Sequence[str]] | None = None,
        drop_path: float = 0.0,
        with_cp: bool = False,
        norm_layer: NormLayer = YOLO_BATCH_NORM,
    ) -> None:
        super().__init__()
        if mlp is not None and mlp not in MLPS:
            raise InputError(f'mlp must be one of {sorted(MLPS)} or None, got {mlp!r}')
        if num_ss2d < 0:
            raise InputError(f'num_ss2d must not be negative, got {num_ss2d}')
        patterns = ['cross'] * num_ss2d if patterns is None else patterns
        if len(patterns) != num_ss2d:
            raise InputError(f'patterns must be one for each of {num_ss2d} SS2D, got {len(patterns)}')
        if local_spatial and not num_ss2d:
            raise InputError('local_spatial puts an LSBlock before the scans, and num_ss2d=0 leaves these out')
        self.with_cp = with_cp
        project = proj_bias or in_channels != out_channels
        self.in_proj = ConvNormAct(
            in_channels, out_channels, bias=proj_bias, norm_layer=norm_layer) if project else nn.Identity()
        self.local = LSBlock(out_channels, norm_layer) if local_spatial else nn.Identity()
        self.norm1 = LayerNorm2d(out_channels) if num_ss2d else None
        self.ss2d = nn.Sequential(*(SS2D(out_channels, pattern=pattern, ssm_init=ssm_init) for pattern in patterns))
        self.norm2 = LayerNorm2d(out_channels) if mlp else None
        self.mlp = MLPS[mlp](out_channels, act=gate_act) if mlp else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_proj(x)
        # Batch norms stay outside of what is checkpointed: computed twice, they would count every batch twice.
        local = self.local(x)
        if self.with_cp and x.requires_grad:
            return checkpoint(self._residuals, x, local, use_reentrant=False)
        return self._residuals(x, local)

    def _residuals(self, x: Tensor, local: Tensor) -> Tensor:
        if self.norm1 is not None:
            x = x + self.drop_path(self.ss2d(self.norm1(local)))
        if self.norm2 is not None:
            x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x
