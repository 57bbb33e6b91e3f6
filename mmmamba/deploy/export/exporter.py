"""What all export formats have in common: write a file, compare it with PyTorch, and leave it only if they agree."""
from __future__ import annotations

import json
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmmamba.deploy.export import runtime
from mmmamba.deploy.export.network import MAP_TOLERANCE, BoxNetwork, ExportedNetwork, rounded_to_half
from mmmamba.errors import InputError
from mmmamba.ops.scan.orders import visited_pixels
from mmmamba.version import __version__

BOX_TOLERANCE = 1e-3
"""Largest difference of a box from PyTorch's, in pixels. Of one longer than 100 pixels, per 100 pixels of its length:
there PyTorch itself is further from float64."""
SCORE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Suppression:
    """How ``--nms`` chooses among the boxes, as a detector's ``test_cfg`` has it.

    Attributes:
        score_thr: Boxes with a lower score are left out.
        iou_threshold: Boxes of a class that overlap a better one by more are left out.
        max_per_img: Boxes of an image at most.
    """

    score_thr: float
    iou_threshold: float
    max_per_img: int


@dataclass(frozen=True)
class ExportOptions:
    """What is asked of a file.

    Attributes:
        size: Height and width of the images.
        dynamic: Whether batch, height and width are left open.
        suppression: For boxes after NMS; None for all cells.
        portable: Standard operators alone, without a place for the compiled scan.
        half: Weights are rounded to float16 and kept in it; it is computed in the runtime's own precision.
    """

    size: tuple[int, int]
    dynamic: bool = False
    suppression: Suppression | None = None
    portable: bool = False
    half: bool = False


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes an input: kept in the file for the runtime.

    Attributes:
        pad_value: Of what is added at the bottom and on the right, 0 to 255.
        classes: Names.
    """

    pad_value: int
    classes: tuple[str, ...]


class Exporter(ABC):
    """Writes files of one format."""

    suffix: str
    """The ending of its files."""
    has_half = False
    """Whether its files can hold float16 weights, of a network whose own are such values."""

    def export(self, network: ExportedNetwork, out: Path, options: ExportOptions, preprocessing: Preprocessing,
               images: Sequence[np.ndarray] = ()) -> dict[str, float]:
        """Writes a file whose results are PyTorch's; with ``half``, PyTorch's with the rounded weights.

        Args:
            network: On a CPU.
            out: The file.
            options: What is asked of it.
            preprocessing: Is kept in it.
            images: RGB (H, W, 3) uint8 of ``options.size`` to compare on, besides a composed one.

        Returns:
            The largest difference from PyTorch of each kind of output.

        Raises:
            InputError: The file would differ from PyTorch, or cannot be made; then there is none.
        """
        self.require(network, out, options, preprocessing)
        if options.half:
            network = rounded_to_half(network)
        temporary = out.with_name(f'.{os.getpid()}-{out.name}')
        try:
            self.write(network, temporary, options, describe(network, options, preprocessing))
            worst = self._compare(network, temporary, options, images)
            for made, kept in reversed([*zip(self.files(temporary), self.files(out))]):  # the one that is opened last
                os.replace(made, kept)
        finally:
            for made in self.files(temporary):
                made.unlink(missing_ok=True)
        return worst

    def files(self, path: Path) -> list[Path]:
        """Returns the files that belong to one of that path, itself among them."""
        return [path]

    @abstractmethod
    def write(self, network: ExportedNetwork, out: Path, options: ExportOptions, metadata: dict[str, str]) -> None:
        """Writes the file."""

    def require(self, network: ExportedNetwork, out: Path, options: ExportOptions,
                preprocessing: Preprocessing) -> None:
        """Checks what :meth:`export` is asked.

        Raises:
            InputError: It cannot be done.
        """
        if out.suffix != self.suffix:
            raise InputError(f'--out: the file must end with {self.suffix}, got {out}')
        if not out.absolute().parent.is_dir():
            raise InputError(f'--out: there is no folder {out.parent}')
        if out.is_dir():
            raise InputError(f'--out: {out} is a folder')
        if options.half and not self.has_half:
            raise InputError(f'--half is for ONNX and OpenVINO files; those that end with {self.suffix} keep float32')
        if any(side < 1 or side % network.stride for side in options.size):
            raise InputError(f'--size: height and width must be multiples of {network.stride}, got '
                             f'{options.size[0]} {options.size[1]}')
        if options.suppression and not isinstance(network, BoxNetwork):
            raise InputError('--nms is for detectors with a YOLOv8Head; of this one, backbone and neck are exported')
        if options.suppression and network.has_masks:
            raise InputError('--nms is for detectors without masks')
        if isinstance(network, BoxNetwork) and len(preprocessing.classes) != network.num_classes:
            raise InputError(f'the head has {network.num_classes} classes, but there are names for '
                             f'{len(preprocessing.classes)}: take the config of the training, or its --data')

    def _compare(self, network: ExportedNetwork, path: Path, options: ExportOptions,
                 images: Sequence[np.ndarray]) -> dict[str, float]:
        batches = [as_input([image]) for image in (composed_image(*options.size), *images)]
        if options.dynamic:  # two images of another shape
            height, width = options.size[0] + network.stride, options.size[1] + 2 * network.stride
            batches.append(as_input([composed_image(height, width, seed) for seed in (1, 2)]))
        session = runtime.open_file(path)
        worst: dict[str, float] = {}
        for batch in batches:
            with torch.no_grad(), on_backend(network, None):
                expected = network(torch.from_numpy(batch))
            got = session.run(batch)
            if options.suppression is None:
                all_found = [differences(network, got, expected)]
            else:
                all_found = [suppression_differences(rows, output.numpy(), options.suppression, batch.shape[2:])
                             for rows, output in zip(got[0], expected[0])]
            for found in all_found:
                for name, value in found.items():
                    worst[name] = float(np.maximum(value, worst.get(name, 0.0)))  # NaN stays
        limits = {'boxes': BOX_TOLERANCE, 'scores': SCORE_TOLERANCE}
        for name, value in worst.items():
            if not value <= limits.get(name, MAP_TOLERANCE):  # so that NaN fails
                raise InputError(f'the file was not kept: its {name} differ from PyTorch by {value:.1e}, '
                                 f'more than {limits.get(name, MAP_TOLERANCE):.0e}')
        return worst


@contextmanager
def on_backend(network: ExportedNetwork, name: str | None) -> Iterator[None]:
    """Runs the network's scans on a backend meanwhile."""
    layers: list[Any] = [layer for layer in network.modules() if hasattr(layer, 'scan_backend')]
    before = [layer.scan_backend for layer in layers]
    try:
        for layer in layers:
            layer.scan_backend = name
        yield
    finally:
        for layer, backend in zip(layers, before):
            layer.scan_backend = backend


def traced(network: ExportedNetwork, options: ExportOptions, module: nn.Module | None = None,
           decompositions: Mapping[Any, Callable[..., Tensor]] = MappingProxyType({})) -> Any:
    """Returns the network as a ``torch.export.ExportedProgram``.

    Args:
        network: The network.
        options: What is asked of the file.
        module: What is traced instead of it, if not the network itself.
        decompositions: Functions that replace operators.
    """
    images, shapes = torch.zeros(1, 3, *options.size), None
    if options.dynamic:
        Dim, stride = torch.export.Dim, network.stride
        # Sizes that differ, and are not one: PyTorch would take what is equal for the same, and one for a constant.
        # The smallest map has 16 x 23 pixels, so that windows of 7 are several in both directions.
        images = torch.zeros(2, 3, 16 * stride, 23 * stride)
        shapes = {'images': {0: Dim('batch', max=1024), 2: stride * Dim('rows', max=256),
                             3: stride * Dim('columns', max=256)}}
    with torch.no_grad(), quiet():
        program = torch.export.export((module or network).eval(), (images,), dynamic_shapes=shapes)
        return program.run_decompositions(
            {torch.ops.mmmamba.scan_order.default: visited_pixels, **decompositions})


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter's own warnings from the user."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir', 'torch._export')]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def describe(network: ExportedNetwork, options: ExportOptions, preprocessing: Preprocessing) -> dict[str, str]:
    """Returns what is kept in the file: the keys that Ultralytics' loader reads, and how to make inputs."""
    boxes = isinstance(network, BoxNetwork)
    return {
        'author': f'mmmamba {__version__}',
        'task': ('segment' if network.has_masks else 'detect') if boxes else 'features',
        'stride': str(network.stride),
        'batch': '1',
        'imgsz': str(list(options.size)),
        'names': str(dict(enumerate(preprocessing.classes))),
        'channels': '3',
        'end2end': str(options.suppression is not None),
        'compiled_scans': str(not options.portable and any(
            hasattr(layer, 'scan_backend') for layer in network.modules())),
        'args': str({'dynamic': options.dynamic, 'nms': options.suppression is not None}),
        'input': json.dumps({'channels': 'RGB', 'mean': [0, 0, 0], 'std': [255, 255, 255]}),  # of pixels from 0 to 255
        'letterbox': json.dumps({'pad_value': preprocessing.pad_value, 'at': 'bottom right'}),
        'suppression': json.dumps(None if options.suppression is None else asdict(options.suppression)),
    }


def composed_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Makes an RGB image (H, W, 3), uint8: rectangles and noise."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (1, 1, 3)) * np.ones((height, width, 1))
    for _ in range(12):
        top, left = random.integers(0, height), random.integers(0, width)
        bottom, right = top + random.integers(1, height), left + random.integers(1, width)
        image[top:bottom, left:right] = random.integers(0, 256, 3)
    return np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


def as_input(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns RGB images (H, W, 3), uint8, as (B, 3, H, W), float32 from 0 to 1."""
    batch = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray(batch / 255)


def differences(network: ExportedNetwork, got: Sequence[np.ndarray], expected: Sequence[Tensor]) -> dict[str, float]:
    """Returns the largest differences: of boxes in pixels, of scores, and of maps relative to their norm."""
    if len(got) != len(expected):
        raise InputError(f'the file was not kept: it has {len(got)} outputs where PyTorch has {len(expected)}')
    for mine, value in zip(got, expected):
        if mine.shape != tuple(value.shape):
            raise InputError(f'the file was not kept: it has an output {mine.shape} where PyTorch has '
                             f'{tuple(value.shape)}')
    if not isinstance(network, BoxNetwork):
        return {name: _relative(mine, value) for name, mine, value in zip(network.output_names, got, expected)}
    delta = np.abs(got[0] - expected[0].numpy())
    scores = slice(4, 4 + network.num_classes)
    found = {'boxes': _largest(delta[:, :4], expected[0][:, 2:4].numpy().max(1, keepdims=True)),
             'scores': float(delta[:, scores].max())}
    if network.has_masks:
        found['coefficients'] = _relative(got[0][:, scores.stop:], expected[0][:, scores.stop:])
        found['prototypes'] = _relative(got[1], expected[1])
    return found


def rounding_differences(network: ExportedNetwork, size: tuple[int, int],
                         images: Sequence[np.ndarray] = ()) -> dict[str, float]:
    """Returns how far the outputs are moved by ``half``, as :func:`differences` does."""
    rounded, worst = rounded_to_half(network), dict[str, float]()
    for image in (composed_image(*size), *images):
        batch = torch.from_numpy(as_input([image]))
        with torch.no_grad(), on_backend(network, None), on_backend(rounded, None):
            found = differences(network, [output.numpy() for output in rounded(batch)], network(batch))
        worst = {name: float(np.maximum(value, worst.get(name, 0.0))) for name, value in found.items()}
    return worst


def _largest(delta: np.ndarray, lengths: np.ndarray) -> float:
    """Returns the largest difference of boxes, as :data:`BOX_TOLERANCE` has it."""
    return float((delta / np.maximum(lengths / 100, 1)).max(initial=0))


def _relative(got: np.ndarray, expected: Tensor) -> float:
    return float(np.linalg.norm(got - expected.numpy()) / max(float(expected.norm()), 1e-30))


def suppression_differences(rows: np.ndarray, output: np.ndarray, chosen: Suppression,
                            size: Sequence[int]) -> dict[str, float]:
    """Returns how far an image's boxes after NMS are from the cells that they come from.

    What is within a rounding of a threshold may be kept or left out.

    Args:
        rows: (n, 6): corners, score and class; zeros after the last box.
        output: (4 + classes, cells), PyTorch's.
        chosen: How they were chosen.
        size: Height and width of the images, to which boxes are clipped.

    Raises:
        InputError: A box is left out that should not be, or kept.
    """
    rows = rows[rows[:, 4] > 0]
    height, width = size
    scores = output[4:]
    corners = np.concatenate([output[:2] - output[2:4] / 2, output[:2] + output[2:4] / 2]).T
    corners = corners.clip(0, [width, height, width, height])
    labels = rows[:, 5].astype(int)
    distances = np.abs(corners[None] - rows[:, None, :4]).max(2) + 1e3 * np.abs(scores[labels] - rows[:, 4:5])
    cells = distances.argmin(1)
    least = chosen.score_thr if len(rows) < chosen.max_per_img else rows[:, 4].min()
    for label, of_class in enumerate(scores):
        kept = cells[labels == label]
        left = np.setdiff1d(np.flatnonzero(of_class > least + SCORE_TOLERANCE), kept)
        better = of_class[kept][None] >= of_class[left][:, None] - SCORE_TOLERANCE
        overlaps = _overlaps(corners[left], corners[kept])
        if not ((overlaps > chosen.iou_threshold - 1e-4) & better).any(1).all():
            raise InputError('the file was not kept: its NMS leaves out boxes that overlap no better one')
        among = _overlaps(corners[kept], corners[kept])
        np.fill_diagonal(among, 0)
        if len(np.unique(kept)) < len(kept) or (among > chosen.iou_threshold + 1e-4).any():
            raise InputError('the file was not kept: its NMS keeps boxes that overlap a better one')
    return {'boxes': _largest(np.abs(corners[cells] - rows[:, :4]), output[2:4, cells].max(0)[:, None]),
            'scores': float(np.abs(scores[labels, cells] - rows[:, 4]).max(initial=0))}


def _overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the IoU of boxes (n, 4) with others (m, 4), as (n, m)."""
    sides = np.minimum(one[:, None, 2:], other[:, 2:]) - np.maximum(one[:, None, :2], other[:, :2])
    inside = sides.clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    return inside / np.maximum(areas[0][:, None] + areas[1] - inside, 1e-12)
