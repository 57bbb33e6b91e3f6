"""EVSS block: the block of EfficientVMamba's high resolutions."""
from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmamba.layers.conv_norm_act import ConvNormAct
from mmmamba.layers.drop_path import DropPath
from mmmamba.layers.norm import LayerNorm2d, NormLayer
from mmmamba.layers.squeeze_excitation import SqueezeExcitation
from mmmamba.layers.ss2d import SS2D

SE_REDUCTION = 8


class EVSSBlock(nn.Module):
    """Efficient visual state space block (EfficientVMamba, arXiv 2403.09977)::

        n   = norm(x)
        out = x + DropPath(SE(ES2D(n)) + SE(local(n)))         the same SE for both

    ES2D is an :class:`SS2D` that skips: each direction scans its own quarter of the pixels, every other row and
    column. ``local`` is a depthwise 3x3 and a 1x1 convolution.

    Args:
        channels: C of the input and the output.
        drop_path: Probability of dropping the two branches.
        with_cp: Recompute the scan's branch in the backward pass, rather than keep its activations.
        norm_layer: Makes the normalisation behind the depthwise convolution.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(
        self,
        channels: int,
        drop_path: float = 0.0,
        with_cp: bool = False,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.norm = LayerNorm2d(channels, eps=1e-5)
        self.ss2d = SS2D(channels, act='silu', pattern='atrous', ssm_init='mamba')
        self.local = nn.Sequential(
            ConvNormAct(channels, channels, 3, groups=channels, bias=True, norm_layer=norm_layer, act_layer=nn.GELU),
            nn.Conv2d(channels, channels, 1))
        self.se = SqueezeExcitation(
            channels, max(channels // SE_REDUCTION, 1), nn.GELU, LayerNorm2d(channels, eps=1e-5))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x)
        # A batch norm stays outside of what is checkpointed: computed twice, it would count every batch twice.
        if self.with_cp and n.requires_grad:
            scanned = checkpoint(self._scanned, n, use_reentrant=False)
        else:
            scanned = self._scanned(n)
        return x + self.drop_path(scanned + self.se(self.local(n)))

    def _scanned(self, n: Tensor) -> Tensor:
        return self.se(self.ss2d(n))
