"""ODSS block: the unit that ODMamba and ODSS-PAFPN are built of."""
from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmamba.errors import InputError
from mmmamba.layers.conv_norm_act import ConvNormAct
from mmmamba.layers.drop_path import DropPath
from mmmamba.layers.ls_block import LSBlock
from mmmamba.layers.mlp import MLPS
from mmmamba.layers.norm import YOLO_BATCH_NORM, LayerNorm2d, NormLayer
from mmmamba.layers.pre_norm import pre_norm_residual
from mmmamba.layers.ss2d import SS2D


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
        local_spatial: Whether the LSBlock stands before the scan (it does in the ``released`` models).
        mlp: ``'rg'`` for the RG block, or a row of the paper's table 3: ``'mlp'``, ``'conv'``, ``'res_conv'``,
            ``'gated'``. None leaves the branch out (table 2).
        gate_act: Activation inside the MLP: ``'gelu'``, ``'silu'`` or ``'relu'``.
        ssm_init: ``'reference'`` or ``'mamba'``.
        drop_path: Probability of dropping a residual branch.
        with_cp: Recompute the scan and the MLP in the backward pass, rather than keep their activations.
        norm_layer: Makes the normalisations behind convolutions.

    Without gradients, the norms and the residual sums are computed inside of the last SS2D and of the MLP: forward
    hooks on those see the sum, and hooks on the norms see nothing.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H, W).

    Raises:
        InputError: An ``mlp`` or another name that there is not, a negative ``num_ss2d``, or ``local_spatial`` without
            a scan to stand before.
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
        ssm_init: str = 'reference',
        drop_path: float = 0.0,
        with_cp: bool = False,
        norm_layer: NormLayer = YOLO_BATCH_NORM,
    ) -> None:
        super().__init__()
        if mlp is not None and mlp not in MLPS:
            raise InputError(f'mlp must be one of {sorted(MLPS)} or None, got {mlp!r}')
        if num_ss2d < 0:
            raise InputError(f'num_ss2d must not be negative, got {num_ss2d}')
        if local_spatial and not num_ss2d:
            raise InputError('local_spatial puts an LSBlock before the scans: num_ss2d=0 leaves it nowhere to stand')
        self.with_cp = with_cp
        project = proj_bias or in_channels != out_channels
        self.in_proj = ConvNormAct(
            in_channels, out_channels, bias=proj_bias, norm_layer=norm_layer) if project else nn.Identity()
        self.local = LSBlock(out_channels, norm_layer) if local_spatial else nn.Identity()
        self.norm1 = LayerNorm2d(out_channels) if num_ss2d else None
        self.ss2d = nn.Sequential(*(SS2D(out_channels, ssm_init=ssm_init) for _ in range(num_ss2d)))
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
            x = pre_norm_residual(x, self._scans, self.norm1, self.drop_path, local)
        if self.norm2 is not None:
            x = pre_norm_residual(x, self.mlp, self.norm2, self.drop_path)
        return x

    def _scans(self, x: Tensor, norm: LayerNorm2d | None = None, residual: Tensor | None = None) -> Tensor:
        *others, last = self.ss2d
        for ss2d in others:
            x, norm = ss2d(x, norm), None
        return last(x, norm, residual)
