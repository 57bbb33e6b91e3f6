"""Multi-scale deformable attention with the argument order of ``mmcv._ext``, in PyTorch on any device.

mmcv has the operator in PyTorch and takes that on the CPU; on a GPU it calls the compiled extension. Here both are the
one in PyTorch, and the backward differentiates it.
"""
from __future__ import annotations

import torch
from torch import Tensor


def ms_deform_attn_forward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                           sampling_locations: Tensor, attention_weights: Tensor, im2col_step: int) -> Tensor:
    """Sums the values at the sampling points of all levels, weighted by the attention.

    Args:
        value: (B, sum of H_l W_l, heads, channels).
        value_spatial_shapes: (levels, 2) int64 ``H_l, W_l``.
        value_level_start_index: (levels,) where each level starts in ``value``; implied by the shapes.
        sampling_locations: (B, queries, heads, levels, points, 2) x, y in units of the map; zero outside [0, 1].
        attention_weights: (B, queries, heads, levels, points).
        im2col_step: samples that the compiled kernel takes at once; without meaning here.

    Returns:
        (B, queries, heads * channels).
    """
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
    return multi_scale_deformable_attn_pytorch(value, value_spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                            sampling_locations: Tensor, attention_weights: Tensor, grad_output: Tensor,
                            grad_value: Tensor, grad_sampling_loc: Tensor, grad_attn_weight: Tensor,
                            im2col_step: int) -> None:
    """Adds the gradients with respect to values, locations and weights to the ``grad_*`` tensors of the same shapes.

    ``grad_output`` is (B, queries, heads * channels); the other arguments are the forward's.
    """
    with torch.enable_grad():
        inputs = [t.detach().requires_grad_() for t in (value, sampling_locations, attention_weights)]
        output = ms_deform_attn_forward(inputs[0], value_spatial_shapes, value_level_start_index, inputs[1], inputs[2],
                                        im2col_step)
    grads = torch.autograd.grad(output, inputs, grad_output)
    for destination, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads):
        destination += grad
