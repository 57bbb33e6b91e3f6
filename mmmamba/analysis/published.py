"""What papers and model zoos state of detectors on COCO, to compare our counts with."""
from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple


class Convention(NamedTuple):
    """How a table of FLOPs counts.

    Attributes:
        per_multiply_add: FLOPs of a multiplication with its addition.
        per_norm_element: FLOPs of a norm for each element of its map, where norms are counted: tables differ in
            whether they are, since one that is folded into a convolution costs nothing.
        projections: Whether what makes step, B and C of the scans is counted.
    """

    per_multiply_add: int
    per_norm_element: int
    projections: bool


THOP = Convention(2, 8, projections=False)
"""Multiply-adds as thop counts them, taken twice. It sees modules only, and in the reference implementation of SS2D
the projections and the scan are none."""
MMDET = Convention(1, 2, projections=True)
"""``tools/analysis_tools/get_flops.py`` of mmdet."""

MAMBA_YOLO_PAPER = 'Mamba YOLO, arXiv 2406.05835, table 1'
LATENCY_CONDITIONS = 'arXiv 2406.05835: TensorRT FP16 on an RTX 4090, on which YOLOv8-S takes 0.4 ms more than T'


class Published(NamedTuple):
    """A row of a published table; the figures as they are printed, None if there is none.

    Attributes:
        title: The model, as its authors call it.
        parameters: In millions.
        gflops: At 640 x 640.
        ap: On COCO val2017.
        source: Where the figures stand.
        convention: How ``gflops`` counts.
        latency: In ms, see ``LATENCY_CONDITIONS``.
    """

    title: str
    parameters: str | None
    gflops: str | None
    ap: str
    source: str = MAMBA_YOLO_PAPER
    convention: Convention = THOP
    latency: str | None = None


_T = Published('Mamba YOLO-T', '5.8', '13.2', '44.5', latency='1.5')
_B = Published('Mamba YOLO-B', '19.1', '45.4', '49.1')
_L = Published('Mamba YOLO-L', '57.6', '156.2', '52.1')
_RTMDET = 'mmdet, configs/rtmdet/README.md'

PUBLISHED: Mapping[str, Published] = MappingProxyType({
    'mamba-yolo_t': _T,
    'mamba-yolo_b': _B,
    'mamba-yolo_l': _L,
    'mamba-yolo_t_released': _T,
    'mamba-yolo_b_released': _B,
    'mamba-yolo_l_released': _L,
    'yolov8_n': Published('YOLOv8-N', '3.2', '8.7', '37.3'),
    'yolov8_s': Published('YOLOv8-S', '11.2', '28.6', '44.9'),
    'yolov8_m': Published('YOLOv8-M', '25.9', '78.9', '50.6'),
    'yolov8_l': Published('YOLOv8-L', '43.7', '165.2', '53.0'),
    'rtmdet_tiny': Published('RTMDet-tiny', '4.8', '8.1', '41.1', _RTMDET, MMDET),
    'rtmdet_s': Published('RTMDet-s', '8.89', '14.8', '44.6', _RTMDET, MMDET),
    'yolox_s': Published('YOLOX-s', '9.0', '26.8', '40.5', 'YOLOX, README.md of its repository'),
    'dino-4scale_r50': Published('DINO-4scale-R50, 12 epochs', None, None, '49.0', 'mmdet, configs/dino/metafile.yml'),
})
"""By the name of a config in ``configs/``, without its recipe. The paper does not say which of the two variants of
Mamba YOLO its table has, so both are compared with it."""

PUBLISHED_ONLY: tuple[Published, ...] = (
    Published('Gold-YOLO-N', '5.6', '12.1', '39.6'),
    Published('Gold-YOLO-S', '21.5', '46.0', '45.4'),
    Published('Gold-YOLO-M', '41.3', '87.5', '49.8'),
    Published('Gold-YOLO-L', '75.1', '151.7', '51.8'),
    Published('YOLO-MS-XS', '4.5', '17.4', '43.4'),
    Published('YOLO-MS-S', '8.1', '31.2', '46.2'),
    Published('RT-DETR-R18', '20', '60', '46.5'),
    Published('RT-DETR-R50', '42', '136', '53.1'),
)
"""Models that this package has no config of."""


def rounds_to(value: float, figure: str) -> bool:
    """Tells whether a printed figure is ``value``, rounded to as many digits as are printed."""
    return abs(value - float(figure)) <= _last_digit(figure) / 2


def cut_off_to(value: float, figure: str) -> bool:
    """Tells whether a printed figure is ``value`` with the digits after its last one left out."""
    return 0 <= value - float(figure) < _last_digit(figure)


def _last_digit(figure: str) -> float:
    return 10.0 ** int(Decimal(figure).as_tuple().exponent)
