from mmmamba.datasets.transforms.instance_masks import LoadInstanceMasks, MosaicWithMasks, PackMaskTargets
from mmmamba.datasets.transforms.load_checked_image import LoadCheckedImage
from mmmamba.datasets.transforms.yolo import CenteredRandomAffine, LetterboxPad, RandomHSV

__all__ = ['CenteredRandomAffine', 'LetterboxPad', 'LoadCheckedImage', 'LoadInstanceMasks', 'MosaicWithMasks',
           'PackMaskTargets', 'RandomHSV']
