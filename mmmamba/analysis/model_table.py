"""Counts of models, what is published of them, and what explains a difference."""
from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmamba.analysis.detector import count_detector, model_config
from mmmamba.analysis.measure import Cost, Timing
from mmmamba.analysis.published import PUBLISHED, Convention, Published, cut_off_to, rounds_to

PUBLISHED_SHAPE = (640, 640)
COLUMNS = ('model', 'parameters (M)', 'published', 'conv+linear GFLOPs', 'of them projections', 'scan GFLOPs',
           'as published', 'published GFLOPs', 'published AP', 'latency (ms)', 'published ms')
LATENCY_COLUMNS = COLUMNS[-2:]
NOTHING = '–'

RELEASED_DEPTHS: Mapping[str, tuple[int, ...]] = MappingProxyType({
    't': (1, 1, 3, 1), 'b': (1, 1, 3, 1), 'l': (2, 2, 6, 2)})
"""Blocks [3, 3, 9, 3], times the depth multiple of each size; the paper's [3, 6, 6, 3] are ODMamba's own."""


class Count(NamedTuple):
    """What a detector costs on one image.

    Attributes:
        cost: As :func:`count_detector` has it.
        norm_elements: Elements of all maps that a batch norm or layer norm normalises.
    """

    cost: Cost
    norm_elements: int

    def gflops(self, convention: Convention, norms: bool) -> float:
        """Counts as a table of that convention does, with norms or without."""
        flops = self.cost.linear_flops if convention.projections else self.cost.convention_flops
        flops = flops * convention.per_multiply_add // 2
        return (flops + norms * convention.per_norm_element * self.norm_elements) / 1e9


class Verdict(NamedTuple):
    """Whether a count is the published figure.

    Attributes:
        agrees: It rounds to the figure.
        reason: Where it does not, which other way of counting gives the figure, or that none does.
    """

    agrees: bool
    reason: str


@dataclass(frozen=True)
class Row:
    """A model of ours with its published row.

    Attributes:
        name: Its config's name without the recipe, or the whole name where nothing is published of it.
        cost: Ours.
        published: None where nothing is.
        parameters: None where no figure is published.
        flops: None where no figure is published, or the image is of another size than it is for.
        published_flops: Ours by the published table's convention, without norms, in units of 1e9.
    """

    name: str
    cost: Cost
    published: Published | None = None
    parameters: Verdict | None = None
    flops: Verdict | None = None
    published_flops: float | None = None


def model_name(path: str) -> str:
    """Returns a config's name, without the recipe if that is COCO's: ``mamba-yolo_t_8xb64-300e_coco`` is T."""
    return re.sub(r'_\d+xb\d+-\d+e_coco$', '', Path(path).stem)


def table_row(path: str, height: int, width: int) -> Row:
    """Counts a config's detector and compares it with what is published under its name.

    Args:
        path: The config file.
        height: Of the image, in pixels.
        width: In pixels.

    Raises:
        InputError: The file has no model.
    """
    model, name = model_config(path), model_name(path)
    own, published = count(model, height, width), PUBLISHED.get(name)
    if published is None:
        return Row(name, own.cost)
    others = {label: count(variant, height, width) for label, variant in variants(model).items()}
    parameters = flops = published_flops = None
    if published.parameters is not None:
        parameters = _judge(
            published.parameters,
            {'': own.cost.parameters / 1e6},
            {label: other.cost.parameters / 1e6 for label, other in others.items()})
    if published.gflops is not None and (height, width) == PUBLISHED_SHAPE:
        convention = published.convention
        published_flops = own.gflops(convention, norms=False)
        flops = _judge(published.gflops, _readings('', own, convention), {
            label: value for other in others for label, value in _readings(other, others[other], convention).items()})
    return Row(name, own.cost, published, parameters, flops, published_flops)


def count(model: ConfigDict, height: int, width: int) -> Count:
    """Counts without computing, on PyTorch's meta device; on the CPU what asks for values, as DETRs do."""
    try:
        with torch.device('meta'):
            return _count(model, height, width)
    except (NotImplementedError, RuntimeError):
        return _count(model, height, width)


def _count(model: ConfigDict, height: int, width: int) -> Count:
    detector = MODELS.build(copy.deepcopy(model))  # detectors write into their configs
    elements = 0

    def add(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal elements
        elements += output.numel()

    for module in detector.modules():
        if isinstance(module, (_BatchNorm, nn.LayerNorm)):
            module.register_forward_hook(add)
    return Count(count_detector(detector, height, width).total, elements)


def variants(model: ConfigDict) -> dict[str, ConfigDict]:
    """Returns what a detector on ODMamba of a named size would be with the other Blocks, with or without LSBlock."""
    backbone = model.get('backbone', {})
    if backbone.get('type') != 'ODMamba' or backbone.get('arch') not in RELEASED_DEPTHS:
        return {}
    paper = MODELS.get('ODMamba').arch_settings[backbone.arch].depths
    blocks = {'[3, 6, 6, 3]': paper, '[3, 3, 9, 3]': RELEASED_DEPTHS[backbone.arch]}
    own = tuple(backbone.get('depths') or paper), backbone.get('local_spatial', False)
    found = {}
    for text, depths in blocks.items():
        for local_spatial in (False, True):
            if (depths, local_spatial) != own:
                variant = copy.deepcopy(model)
                variant.backbone.update(depths=depths, local_spatial=local_spatial)
                variant.neck.local_spatial = local_spatial
                found[f'of Blocks {text} {"with" if local_spatial else "without"} LSBlock'] = variant
    return found


def _readings(label: str, counted: Count, convention: Convention) -> dict[str, float]:
    """Returns the ways in which a table may have counted a model."""
    with_norms = f'with {convention.per_norm_element} FLOPs for each element of a norm'
    return {label: counted.gflops(convention, norms=False),
            f'{label}, {with_norms}' if label else with_norms: counted.gflops(convention, norms=True)}


def _judge(figure: str, own: Mapping[str, float], others: Mapping[str, float]) -> Verdict:
    """Compares readings of the model itself, of which ``''`` is the plain one, and of its variants, with a figure."""
    plain = own['']
    if rounds_to(plain, figure):
        return Verdict(True, '')
    found = list(_explanations(figure, own)) or list(_explanations(figure, others))
    difference = f'{plain:.3f} is {100 * (plain / float(figure) - 1):+.2f} % from {figure}: '
    return Verdict(False, difference + ('; or '.join(found) or 'no way of counting tried here gives it'))


def _explanations(figure: str, readings: Mapping[str, float]) -> Iterator[str]:
    for label, value in readings.items():
        counted = f'{value:.3f} {label}'.rstrip()
        if rounds_to(value, figure):
            yield f'{counted} rounds to it'
        elif cut_off_to(value, figure):
            yield f'{counted} becomes it when cut off, not rounded'


def cells_of(row: Row, latency: Timing | None) -> list[str]:
    """Writes a row of the table, one cell for each of ``COLUMNS``."""
    cost, published = row.cost, row.published or Published('', None, None, None)

    def beside(figure: str | None, agrees: bool | None) -> str:
        return f'{figure} {"=" if agrees else "≠"}' if agrees is not None else figure or NOTHING

    return [
        row.name,
        f'{cost.parameters / 1e6:.2f}',
        beside(published.parameters, row.parameters and row.parameters.agrees),
        f'{cost.linear_flops / 1e9:.2f}',
        f'{cost.projection_flops / 1e9:.2f}' if cost.scan_flops else NOTHING,
        f'{cost.scan_flops / 1e9:.2f}' if cost.scan_flops else NOTHING,
        NOTHING if row.published_flops is None else f'{row.published_flops:.2f}',
        beside(published.gflops, row.flops and row.flops.agrees),
        published.ap or NOTHING,
        NOTHING if latency is None else f'{latency.median:.1f} ({latency.p20:.1f} to {latency.p80:.1f})',
        published.latency or NOTHING,
    ]


def published_cells(row: Published) -> list[str]:
    """Writes the row of a model of which there are published figures alone."""
    return [row.title, NOTHING, row.parameters, *[NOTHING] * 4, row.gflops, row.ap, NOTHING, row.latency or NOTHING]


def record_of(row: Row, latency: Timing | None, runs: int | None, where: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the numbers of a row, unrounded, for a CSV file.

    Args:
        row: The row.
        latency: Of the model, if it was measured.
        runs: Of which that is the median.
        where: Size of the image, and environment.
    """
    cost = row.cost
    record = dict(model=row.name, parameters=cost.parameters, linear_flops=cost.linear_flops,
                  projection_flops=cost.projection_flops, scan_flops=cost.scan_flops,
                  gflops_as_published=row.published_flops, **where)
    if latency:
        record.update({f'latency_{name}_ms': ms for name, ms in latency._asdict().items()}, latency_runs=runs)
    for name, verdict in (('parameters', row.parameters), ('gflops', row.flops)):
        if verdict is not None:
            record.update({f'{name}_agree': verdict.agrees, f'{name}_reason': verdict.reason})
    return {**record, **published_record(row.published)} if row.published else record


def published_record(row: Published) -> dict[str, str | None]:
    """Returns the published figures of a model for a CSV file."""
    return dict(published_parameters_m=row.parameters, published_gflops=row.gflops, published_ap=row.ap,
                published_latency_ms=row.latency, source=row.source)
