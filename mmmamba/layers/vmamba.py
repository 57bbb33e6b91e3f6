"""VMamba (arXiv 2401.10166): the VSS block."""
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmamba.layers.common import DropPath, LayerNorm2d, Mlp
from mmmamba.layers.ss2d import SS2D


class VSSBlock(nn.Module):
    """Visual state space block (VMamba, arXiv 2401.10166, figure 3)::

        x = x + DropPath(SS2D(LN(x)))
        x = x + DropPath(MLP(LN(x)))

    The SS2D is the fast one of the paper's section 4.3: no gate, SiLU after a depthwise convolution without a bias.

    Args:
        channels: C of the input and the output.
        d_state: N, states of every scanned channel.
        ssm_ratio: Scanned channels over C.
        mlp_ratio: Hidden channels of the MLP over C.
        pattern: Of the scan, see :class:`SS2D`.
        ssm_init: ``'mamba'`` or ``'mamba_yolo'``, see :func:`mmmamba.layers.ss2d.init_ssm_`.
        drop_path: Probability of dropping a residual branch.
        with_cp: Recompute the block in the backward pass, rather than keep its activations.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(
        self,
        channels: int,
        d_state: int = 1,
        ssm_ratio: float = 1.0,
        mlp_ratio: float = 4.0,
        pattern: str | Sequence[str] = 'cross',
        ssm_init: str = 'mamba',
        drop_path: float = 0.0,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.norm1 = LayerNorm2d(channels, eps=1e-5)
        self.ss2d = SS2D(
            channels, d_state, ssm_ratio, act='silu', gated=False, conv_bias=False, pattern=pattern,
            ssm_init=ssm_init)
        self.norm2 = LayerNorm2d(channels, eps=1e-5)
        self.mlp = Mlp(channels, mlp_ratio)
        self.drop_path = DropPath(drop_path)
        for linear in (self.ss2d.in_proj, self.ss2d.out_proj, self.mlp.fc1, self.mlp.fc2):
            nn.init.trunc_normal_(linear.weight, std=0.02)  # the reference's start for what it has as linear layers
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return checkpoint(self._residuals, x, use_reentrant=False)
        return self._residuals(x)

    def _residuals(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.ss2d(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
