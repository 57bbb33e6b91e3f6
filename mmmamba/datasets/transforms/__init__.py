from mmmamba.datasets.transforms.centered_random_affine import CenteredRandomAffine
from mmmamba.datasets.transforms.letterbox_pad import LetterboxPad
from mmmamba.datasets.transforms.load_checked_image import LoadCheckedImage
from mmmamba.datasets.transforms.random_hsv import RandomHSV

__all__ = ['CenteredRandomAffine', 'LetterboxPad', 'LoadCheckedImage', 'RandomHSV']
