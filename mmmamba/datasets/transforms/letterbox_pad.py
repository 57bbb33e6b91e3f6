"""Padding that is not taken for a part of the picture."""
from __future__ import annotations

from mmdet.datasets.transforms import Pad
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LetterboxPad(Pad):
    """mmdet's ``Pad`` (same arguments) for testing: ``img_shape`` remains the picture's own.

    ``pad_shape`` is the padded one, as where mmdet's ``DetDataPreprocessor`` pads a batch. Heads clip boxes to
    ``img_shape``; after mmdet's ``Pad``, that is the padded size, and boxes end outside the picture. Augmented
    training images are to be padded by mmdet's ``Pad``: what an affine transform moves about has the padded size.
    """

    def transform(self, results: dict) -> dict:
        """Pads ``img`` (H, W, 3) and whatever else there is, below and on the right."""
        shape = results['img_shape']
        results = super().transform(results)
        results['img_shape'] = shape
        return results
