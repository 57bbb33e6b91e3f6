"""LocalMamba (arXiv 2403.09338): searched directions, windows among them, each scan with a gate of its channels."""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmamba.layers.common import DropPath, LayerNorm2d
from mmmamba.layers.efficient_vmamba import SE_REDUCTION, SqueezeExcitation
from mmmamba.layers.ss2d import SS2D
from mmmamba.layers.vim import MambaBranch
from mmmamba.ops.scan.orders import directions_of, scan_order


def channel_gate(channels: int) -> SqueezeExcitation:
    """Makes the channel half of LocalMamba's SCAttn (section 3.3); its code has no spatial half."""
    hidden = max(channels // SE_REDUCTION, 1)
    return SqueezeExcitation(channels, hidden, nn.GELU, LayerNorm2d(channels, eps=1e-5))


class LocalSS2D(SS2D):
    """SS2D in directions of its own, with a gate of the channels after each (LocalMamba, sections 3.2 and 3.3)::

        y = out_norm(sum over k of gate(scan_k(act(dwconv(x)))))                     one gate for all directions

    The rest is as in :class:`SS2D`, with SiLU.

    Args:
        channels: C of the input and the output.
        directions: Names in :data:`mmmamba.ops.scan.orders.ORDERS`.
        released_columns: Put what ``'v'`` and ``'v_flip'`` return where the public code does: it applies the order a
            second time, which is its inverse on square maps only. For the authors' detectors, trained so.
        scan_backend: Backend of :func:`mmmamba.ops.ss2d_scan`; None takes the fastest that can run.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(
        self,
        channels: int,
        directions: Sequence[str],
        released_columns: bool = False,
        scan_backend: str | None = None,
    ) -> None:
        super().__init__(channels, act='silu', pattern=directions, ssm_init='mamba', scan_backend=scan_backend)
        self.released_columns = released_columns
        self.gate = channel_gate(self.conv2d.in_channels)

    def scan(self, u: Tensor) -> Tensor:
        total = u.new_zeros(())
        for k, direction in enumerate(self.directions):
            y = self.scan_direction(u, k)
            if self.released_columns and direction in ('v', 'v_flip'):
                y = reorder_twice(y)
            total = total + self.weigh(k, y)
        return total

    def weigh(self, k: int, y: Tensor) -> Tensor:
        """Returns what direction number k, whose scan returned y, (B, D, H, W), adds to the sum."""
        return self.gate(y)


def reorder_twice(y: Tensor) -> Tensor:
    """Reads maps (B, C, H, W) column by column and puts the pixels where a second such reading would take them."""
    for _ in range(2):
        y = y.transpose(2, 3).reshape(y.shape)
    return y


class LocalVSSBlock(nn.Module):
    """Block of LocalVMamba (section 4.1): ``x + DropPath(LocalSS2D(LN(x)))``, without an MLP.

    Args:
        channels: C of the input and the output.
        directions, released_columns: See :class:`LocalSS2D`.
        drop_path: Probability of dropping the residual branch.
        with_cp: Recompute the block in the backward pass, rather than keep its activations.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(
        self,
        channels: int,
        directions: Sequence[str],
        released_columns: bool = False,
        drop_path: float = 0.0,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.norm = LayerNorm2d(channels, eps=1e-5)
        self.ss2d = LocalSS2D(channels, directions, released_columns)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return checkpoint(self._residual, x, use_reentrant=False)
        return self._residual(x)

    def _residual(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.ss2d(self.norm(x)))


class LocalVimMixer(nn.Module):
    """Mixer of LocalVim (section 4.1): a branch of Mamba in each of its directions, gated and summed::

        x, z = split(in_proj(input))
        out  = out_proj(sum over k of gate(branch_k(x, z in order k)))               one gate for all directions

    Args:
        channels: d of the input and the output; D = 2 d are scanned.
        directions: Names in :data:`mmmamba.ops.scan.orders.ORDERS`.
        d_state: N, states of every scanned channel.
        scan_backend: Backend of :func:`mmmamba.ops.selective_scan`; None takes the fastest that can run.

    Shape:
        (B, H, W, d) to (B, H, W, d).
    """

    def __init__(
        self,
        channels: int,
        directions: Sequence[str],
        d_state: int = 16,
        scan_backend: str | None = None,
    ) -> None:
        super().__init__()
        self.make_branch = partial(MambaBranch, 2 * channels, math.ceil(channels / 16), d_state, scan_backend)
        self.in_proj = nn.Linear(channels, 4 * channels, bias=False)
        self.set_directions(directions)
        self.gate = channel_gate(2 * channels)
        self.out_proj = nn.Linear(2 * channels, channels, bias=False)

    def set_directions(self, directions: Sequence[str]) -> None:
        """Gives the mixer these directions, with branches that start anew."""
        self.directions = directions_of(directions)
        self.branches = nn.ModuleList(self.make_branch() for _ in self.directions)

    def forward(self, inputs: Tensor) -> Tensor:
        batch, height, width, _ = inputs.shape
        xz = F.pad(self.in_proj(inputs).flatten(1, 2), (0, 0, 0, 1))  # the last token is that of padded pixels
        total = xz.new_zeros(())
        for k, (direction, branch) in enumerate(zip(self.directions, self.branches)):
            order = scan_order(direction, height, width, inputs.device)
            y = branch(*xz[:, order].chunk(2, dim=2))
            y = y.new_zeros(batch, height * width + 1, y.shape[2]).index_copy(1, order, y)[:, :-1]
            total = total + self.weigh(k, y.transpose(1, 2).unflatten(2, (height, width)))
        return self.out_proj(total.permute(0, 2, 3, 1))

    def weigh(self, k: int, y: Tensor) -> Tensor:
        """Returns what direction number k, whose branch returned y, (B, D, H, W), adds to the sum."""
        return self.gate(y)
