"""The scans of :mod:`mmmamba.ops.scan.exported` as programs of plain operators, and boxes chosen by such a program.

PyTorch's ``scan`` is an operator that runs a graph of its own for each slice, so the program is as short for a long
sequence as for a short one; AOTInductor makes a loop of it. As in :mod:`onnx_scan`, it goes from block to block, the
directions are one state (K, B, N, D), and in a block the decays of all steps are one ``exp``.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.scan import scan_op

from mmmamba.deploy.export.exporter import Suppression

BLOCK = 8
"""Steps of a block: more are fewer calls of operators, and more memory than a core's cache has."""


def decompositions() -> dict[Any, Callable[..., Tensor]]:
    """Returns what takes the place of both operators, for ``ExportedProgram.run_decompositions``."""
    ops = torch.ops.mmmamba
    return {ops.exported_ss2d_scan.default: ss2d_scan, ops.exported_selective_scan.default: selective_scan}


def ss2d_scan(x: Tensor, projected: Tensor, dt_weight: Tensor, bias: Tensor, A: Tensor, D: Tensor, orders: Tensor,
              places: Tensor) -> Tensor:
    """Computes the operator; :mod:`mmmamba.ops.scan.exported` has the shapes."""
    batch, pixels, _ = x.shape
    directions, _, states = A.shape
    steps = orders.shape[1]
    # Pixels first, with a zero one at the end for what is padded: x (P + 1, B, D), the others (K, P + 1, B, ·).
    x = x.transpose(0, 1)
    projected = F.pad(projected, (0, 0, 0, 0, 0, 1)).permute(2, 1, 0, 3)
    dt, B, C = projected.split([dt_weight.shape[2], states, states], dim=3)
    delta = F.softplus(torch.baddbmm(bias[:, None], dt.flatten(1, 2), dt_weight.transpose(1, 2)))

    # The pixel of every step, in whole blocks: (T', K), and with the direction as the row of K (P + 1) rows.
    order = torch.cat([orders, orders.new_full((directions, 1), pixels)], dim=1)
    order = order.index_select(1, _whole_blocks(orders)).t()
    number = torch.arange(directions, device=x.device)
    row = order + number * (pixels + 1)

    def sequence(rows: Tensor, index: Tensor) -> Tensor:  # to (T', K, B, size)
        rows = rows.reshape(-1, batch, rows.shape[-1])
        return rows.index_select(0, index.reshape(-1)).unflatten(0, index.shape)

    y = _in_blocks((sequence(F.pad(x, (0, 0, 0, 0, 0, 1)), order), sequence(delta, row), sequence(B, row),
                    sequence(C, row)), A)

    # Back to the pixels, from rows of (T', K) and a zero one for a pixel that is not visited.
    visited = places < steps
    place = torch.where(visited, places * directions + number[:, None], y.shape[0] * directions)
    y = F.pad(y.flatten(0, 1), (0, 0, 0, 0, 0, 1)).index_select(0, place.reshape(-1))
    skip = visited.t().to(D.dtype) @ D  # (P, D)
    return (y.unflatten(0, (directions, pixels)).sum(0) + skip[:, None] * x).transpose(0, 1).contiguous()


def selective_scan(x: Tensor, projected: Tensor, delta: Tensor, A: Tensor, D: Tensor) -> Tensor:
    """Computes the operator."""
    steps = _whole_blocks(x)
    B, C = projected.split(A.shape[1], dim=2)

    def sequence(value: Tensor) -> Tensor:  # (B, T, size) to (T', 1, B, size); a padded step has the size zero
        return F.pad(value, (0, 0, 0, 1)).transpose(0, 1).index_select(0, steps)[:, None].contiguous()

    y = _in_blocks((sequence(x), sequence(delta), sequence(B), sequence(C)), A[None])
    return (y[:x.shape[1], 0].transpose(0, 1) + x * D).contiguous()


def _whole_blocks(sequence: Tensor) -> Tensor:
    """Returns 0, …, T - 1 and as many T as fill the last block, for a sequence (·, T, …)."""
    steps = sequence.shape[1]
    blocks = (steps + BLOCK - 1) // BLOCK
    return torch.arange(blocks * BLOCK, device=sequence.device).clamp(max=steps)


def _in_blocks(sequences: Sequence[Tensor], A: Tensor) -> Tensor:
    """Returns Σ_n C h of every step, (T', K, B, D).

    Args:
        sequences: x and delta (T', K, B, D), B and C (T', K, B, N), where T' is a multiple of :data:`BLOCK`.
        A: (K, D, N).
    """
    blocks = [each.unflatten(0, (each.shape[0] // BLOCK, BLOCK)) for each in sequences]
    A = A.transpose(1, 2)[:, None].contiguous()  # (K, 1, N, D)
    start = A.new_zeros(A.shape[0], sequences[0].shape[2], *A.shape[2:])

    def block(h: Tensor, x: Tensor, delta: Tensor, B: Tensor, C: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        decays = torch.exp(delta.unsqueeze(3) * A).unbind()
        inputs = ((delta * x).unsqueeze(3) * B.unsqueeze(4)).unbind()
        states = []
        for decay, given in zip(decays, inputs):
            h = torch.addcmul(given, decay, h)
            states.append(h)
        return h.clone(), torch.matmul(C.unsqueeze(3), torch.stack(states)).squeeze(3)  # an output is no other's view

    # A is handed over: the block's graph takes nothing from outside.
    return scan_op(block, [start], blocks, (A,))[1].flatten(0, 1)


def choose_boxes(output: Tensor, size: Sequence[int], chosen: Suppression) -> Tensor:
    """Returns (B, n, 6): corners in pixels, score and class, best first; then zeros, to ``max_per_img`` rows.

    Args:
        output: (B, 4 + classes, cells): centre, width and height, and scores.
        size: Height and width of the images, to which boxes are clipped before they are compared, as mmdet does.
        chosen: How they are chosen.
    """
    centre, sides, scores = output.split([2, 2, output.shape[1] - 4], dim=1)
    half, height, width = sides / 2, *size
    x, y = (torch.stack([centre[:, i] - half[:, i], centre[:, i] + half[:, i]]).clamp(0, limit)
            for i, limit in enumerate((width, height)))
    corners = torch.stack([x[0], y[0], x[1], y[1]], dim=2)  # (B, cells, 4)
    scores = torch.where(scores > chosen.score_thr, scores, 0)

    def next_best(scores: Tensor, _: Tensor, corners: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        cells = corners.shape[1]
        score, index = scores.flatten(1).max(1, keepdim=True)  # (B, 1)
        label, cell = index // cells, index % cells
        box = corners.gather(1, cell[:, :, None].expand(-1, 1, 4))
        common = torch.minimum(box[..., 2:], corners[..., 2:]) - torch.maximum(box[..., :2], corners[..., :2])
        inside = common.clamp(0).prod(2)  # (B, cells)
        union = _areas(box) + _areas(corners) - inside
        taken = (inside > chosen.iou_threshold * union) | (numbers == cell)
        of_class = torch.arange(scores.shape[1], device=label.device) == label
        left = torch.where(of_class[:, :, None] & taken[:, None], 0, scores)
        row = torch.cat([box[:, 0], score, label.to(score.dtype)], dim=1)
        return left, torch.where(score > 0, row, 0)

    turns, numbers = scores.new_zeros(chosen.max_per_img), torch.arange(corners.shape[1], device=scores.device)
    return scan_op(next_best, [scores], [turns], (corners, numbers))[1].transpose(0, 1).contiguous()


def _areas(corners: Tensor) -> Tensor:
    return (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])
