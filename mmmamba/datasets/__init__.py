"""Data sets, samplers and transforms; imported for their registrations."""
from mmmamba.datasets.checked_coco_dataset import CheckedCocoDataset
from mmmamba.datasets.checked_images import CheckedVOCDataset
from mmmamba.datasets.seeded_dataset import SampleIndex, SeededDataset, SeededSampler
from mmmamba.datasets.transforms import (
    CenteredRandomAffine,
    LetterboxPad,
    LoadCheckedImage,
    LoadInstanceMasks,
    MosaicWithMasks,
    PackMaskTargets,
    RandomHSV,
)

__all__ = ['CenteredRandomAffine', 'CheckedCocoDataset', 'CheckedVOCDataset', 'LetterboxPad', 'LoadCheckedImage',
           'LoadInstanceMasks', 'MosaicWithMasks', 'PackMaskTargets', 'RandomHSV', 'SampleIndex', 'SeededDataset',
           'SeededSampler']
