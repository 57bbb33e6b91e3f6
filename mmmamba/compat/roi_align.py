"""RoIAlign with the argument order of ``mmcv._ext``: torchvision's forward, or in PyTorch on any device.

In PyTorch, each bin of a region averages bilinear samples of the map: a weighted sum of pixels. All bins together are
a sparse matrix, bins x pixels, times the map; :func:`torch.nn.functional.embedding_bag` sums weighted rows of a table
without materialising them. The backward is the same with the transposed matrix, hence deterministic.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.compat.torchvision_ops import compiled_ops, compute_dtype

NO_SAMPLE = -1.0
"""What the argmax maps hold where a bin has no sample."""

MAX_POOL_FLOOR = -10000.0
"""Where mmcv's maximum starts: what a bin without samples, or with lower ones, returns."""


class Samples(NamedTuple):
    """The sampling points of all bins, ordered by region, bin and position within the bin; S of them."""

    y: Tensor  # (S,) in pixels of the map
    x: Tensor  # (S,)
    image: Tensor  # (S,) index of the image in the batch
    bin: Tensor  # (S,) index of the bin: (region * height + row) * width + column
    bin_samples: Tensor  # (S,) number of samples in this one's bin


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """Pools each region of the map to a grid of ``aligned_height`` x ``aligned_width`` bins.

    Args:
        input: (N, C, H, W).
        rois: (R, 5) image index and corners, in pixels of the image.
        output: (R, C, aligned_height, aligned_width), written.
        argmax_y, argmax_x: where the maximum lies; like ``output`` and written for max pooling, otherwise empty.
        spatial_scale: pixels of the map per pixel of the image.
        sampling_ratio: samples per bin and side; 0 takes one per pixel of the map, rounded up.
        pool_mode: 0 takes the greatest sample, 1 their mean.
        aligned: whether pixel centres lie at half-integer positions; if not, regions are at least one pixel long.

    Raises:
        RuntimeError: when ``aligned`` and a region on the CPU has a negative extent.
    """
    # Where only deterministic algorithms are allowed, torchvision takes a slower one of its own on GPUs.
    compiled = pool_mode == 1 and not torch.are_deterministic_algorithms_enabled()
    ops = compiled_ops(input.device) if compiled else None
    if ops is not None:
        dtype = compute_dtype(input)
        regions = rois.detach().to(dtype)
        _refuse_negative_sizes(regions[:, 3:] - regions[:, 1:3], aligned)
        output.copy_(ops.roi_align(input.detach().to(dtype), regions, (aligned_height, aligned_width), spatial_scale,
                                   sampling_ratio, aligned))
        return
    samples = _samples(rois, aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    table = _channels_last_table(input)
    pixels, weights = _bilinear_taps(samples.y, samples.x, samples.image, *input.shape[2:])
    bins = len(rois) * aligned_height * aligned_width
    shape = (len(rois), aligned_height, aligned_width, input.shape[1])
    if pool_mode == 1:
        weights = weights / samples.bin_samples[:, None]
        pooled = _weighted_sums(table, pixels.flatten(), weights.flatten(), samples.bin.repeat_interleave(4), bins)
        output.copy_(pooled.view(shape).permute(0, 3, 1, 2))
        return
    sample_ids = torch.arange(len(pixels), device=pixels.device)
    values = _weighted_sums(table, pixels.flatten(), weights.flatten(), sample_ids.repeat_interleave(4), len(pixels))
    pooled, winner = _segment_max(values, samples.bin, bins)
    output.copy_(pooled.view(shape).permute(0, 3, 1, 2))
    for argmax, coordinate in ((argmax_y, samples.y), (argmax_x, samples.x)):
        # The last entry answers for bins without a winner.
        padded = torch.cat((coordinate, coordinate.new_full((1,), NO_SAMPLE)))
        argmax.copy_(padded[winner].view(shape).permute(0, 3, 1, 2))


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    """Computes the gradient of :func:`roi_align_forward` with respect to the map.

    Args:
        grad_output: (R, C, aligned_height, aligned_width).
        argmax_y, argmax_x: as the forward wrote them.
        grad_input: (N, C, H, W), added to.
        rois, aligned_height, aligned_width, spatial_scale, sampling_ratio, pool_mode, aligned: as in the forward.
    """
    images, channels, height, width = grad_input.shape
    if pool_mode == 1:
        samples = _samples(rois, aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
        pixels, weights = _bilinear_taps(samples.y, samples.x, samples.image, height, width)
        weights = (weights / samples.bin_samples[:, None]).flatten()
        pixels, order = pixels.flatten().sort(stable=True)
        bins = samples.bin.repeat_interleave(4)[order]
        table = _channels_last_table(grad_output)
        grad = _weighted_sums(table, bins, weights[order], pixels, images * height * width)
        grad_input += grad.view(images, height, width, channels).permute(0, 3, 1, 2)
        return
    wide = compute_dtype(grad_output)
    image = rois[:, 0].long().view(-1, 1, 1, 1).expand_as(argmax_y).flatten()
    pixels, weights = _bilinear_taps(argmax_y.flatten().to(wide), argmax_x.flatten().to(wide), image, height, width)
    weights = weights * (argmax_y.flatten() != NO_SAMPLE)[:, None] * grad_output.flatten().to(wide)[:, None]
    channel = torch.arange(channels, device=rois.device).view(1, -1, 1, 1).expand_as(argmax_y).reshape(-1, 1)
    flat = weights.new_zeros(images * height * width * channels)
    flat.index_add_(0, (pixels * channels + channel).flatten(), weights.flatten())
    grad_input += flat.view(images, height, width, channels).permute(0, 3, 1, 2)


def _samples(rois: Tensor, height: int, width: int, spatial_scale: float, sampling_ratio: int,
             aligned: bool) -> Samples:
    """Lays out the sampling points: bin ``b`` of size ``s`` has them at ``start + b s + (k + 0.5) s / count``."""
    rois = rois.to(compute_dtype(rois))
    corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    start, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not aligned:
        size = size.clamp(min=1)
    _refuse_negative_sizes(size, aligned)
    bin_size = size / size.new_tensor([width, height])
    if sampling_ratio > 0:
        grid = torch.full_like(bin_size, sampling_ratio, dtype=torch.long)
    else:
        grid = bin_size.ceil().long().clamp(min=0)

    per_bin = grid.prod(1)
    samples_before = (per_bin * height * width).cumsum(0) - per_bin * height * width
    roi = torch.repeat_interleave(torch.arange(len(rois), device=rois.device), per_bin * height * width)
    k = torch.arange(len(roi), device=rois.device) - samples_before[roi]
    bin_of_roi = k // per_bin[roi]
    k = k % per_bin[roi]
    column, row = bin_of_roi % width, bin_of_roi // width
    grid_x, grid_y = grid[roi].unbind(1)
    x = _positions(start[roi, 0], bin_size[roi, 0], column, k % grid_x, grid_x)
    y = _positions(start[roi, 1], bin_size[roi, 1], row, k // grid_x, grid_y)
    return Samples(y, x, rois[roi, 0].long(), roi * (height * width) + bin_of_roi, per_bin[roi])


def _refuse_negative_sizes(size: Tensor, aligned: bool) -> None:
    """Raises as mmcv does on a CPU, where looking at the values costs nothing."""
    if aligned and size.device.type == 'cpu' and (size < 0).any():
        raise RuntimeError('RoIAlign: regions must not have a negative width or height')


def _positions(start: Tensor, bin_size: Tensor, bin_index: Tensor, k: Tensor, count: Tensor) -> Tensor:
    """Returns the sample positions along one axis, (S,), rounded as mmcv rounds them."""
    return start + bin_index * bin_size + (k + 0.5) * bin_size / count


def _bilinear_taps(y: Tensor, x: Tensor, image: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns the four pixels around each point and their weights.

    Points up to one pixel outside take the border's value; those further outside weigh nothing.

    Returns:
        (S, 4) indices into the pixels of the whole batch, and (S, 4) weights.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y0, y1, wy = _neighbours(torch.where(inside, y, 0), height)
    x0, x1, wx = _neighbours(torch.where(inside, x, 0), width)
    top, bottom = (image * height + y0) * width, (image * height + y1) * width
    pixels = torch.stack((top + x0, top + x1, bottom + x0, bottom + x1), 1)
    weights = torch.stack(((1 - wy) * (1 - wx), (1 - wy) * wx, wy * (1 - wx), wy * wx), 1)
    return pixels, weights * inside[:, None]


def _neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the lower and upper pixel of each position along one axis, and the weight of the upper one."""
    position = position.clamp(0, size - 1)
    low = position.long()
    return low, (low + 1).clamp(max=size - 1), position - low


def _weighted_sums(table: Tensor, rows: Tensor, weights: Tensor, bags: Tensor, num_bags: int) -> Tensor:
    """Sums ``weights[k] * table[rows[k]]`` over the ``k`` of each bag.

    Args:
        table: (T, C).
        rows: (K,) indices into the table.
        weights: (K,).
        bags: (K,) non-decreasing indices below ``num_bags``.

    Returns:
        (num_bags, C).
    """
    if rows.numel() == 0 or num_bags == 0:
        return table.new_zeros(num_bags, table.shape[1])
    offsets = torch.searchsorted(bags, torch.arange(num_bags, device=bags.device))
    return F.embedding_bag(rows, table, offsets, mode='sum', per_sample_weights=weights.to(table.dtype))


def _segment_max(values: Tensor, segments: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """Finds the greatest value of each segment and channel above ``MAX_POOL_FLOOR``, and the first row that has it.

    Args:
        values: (S, C).
        segments: (S,) segment of each row.

    Returns:
        (num_segments, C) values, and (num_segments, C) rows, ``S`` where there is none.
    """
    index = segments[:, None].expand_as(values)
    best = values.new_full((num_segments, values.shape[1]), MAX_POOL_FLOOR).scatter_reduce(0, index, values, 'amax')
    is_best = (values == best[segments]) & (values > MAX_POOL_FLOOR)
    rows = torch.arange(len(values), device=values.device)[:, None].expand_as(values)
    rows = torch.where(is_best, rows, len(values))
    return best, torch.full_like(best, len(values), dtype=torch.long).scatter_reduce(0, index, rows, 'amin')


def _channels_last_table(maps: Tensor) -> Tensor:
    """Turns (N, C, H, W) into a contiguous (N * H * W, C), in the precision that is computed in."""
    return maps.detach().to(compute_dtype(maps)).permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).contiguous()
