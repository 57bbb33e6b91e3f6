"""The residual branch that all blocks of visual Mambas are made of."""
from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mmmamba.layers.drop_path import DropPath
from mmmamba.layers.norm import LayerNorm2d


class Branch(Protocol):
    """What stands in the branch: it can take the norm before and the sum behind it into its own passes."""

    def __call__(self, x: Tensor, norm: LayerNorm2d | None = None, residual: Tensor | None = None) -> Tensor:
        """``branch(norm(x)) + residual``, of each what is given."""


def pre_norm_residual(x: Tensor, branch: Branch, norm: LayerNorm2d, drop_path: DropPath,
                      branch_input: Tensor | None = None) -> Tensor:
    """``x + drop_path(branch(norm(branch_input)))``; without gradients, norm and sum are computed inside the branch.

    Args:
        x: (B, C, H, W).
        branch: An SS2D, an MLP.
        norm: Layer norm before the branch.
        drop_path: Stochastic depth of the branch.
        branch_input: What the branch sees; None for ``x``.
    """
    branch_input = x if branch_input is None else branch_input
    if torch.is_grad_enabled() or (drop_path.training and drop_path.drop_prob):
        return x + drop_path(branch(norm(branch_input)))
    return branch(branch_input, norm, x)
