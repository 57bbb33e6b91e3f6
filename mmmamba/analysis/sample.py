"""What mmdet's detectors want beside an image."""
from __future__ import annotations

from mmdet.structures import DetDataSample


def empty_sample(height: int, width: int) -> DetDataSample:
    """The sample of an image that was neither scaled nor padded, without objects; sizes in pixels."""
    shape = (height, width)
    return DetDataSample(metainfo=dict(
        img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape, scale_factor=(1.0, 1.0), img_id=0))
