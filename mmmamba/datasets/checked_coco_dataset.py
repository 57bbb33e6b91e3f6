"""A COCO data set that says what is wrong with its files before training starts."""
from __future__ import annotations

import logging

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.logging import print_log

from mmmamba.datasets import coco_checks
from mmmamba.datasets.checked_images import CheckedImages
from mmmamba.errors import InputError


@DATASETS.register_module()
class CheckedCocoDataset(CheckedImages, CocoDataset):
    """mmdet's ``CocoDataset`` (same arguments) for files that may be wrong.

    When the annotations are loaded, each of the following raises an :class:`InputError` of one line that names the
    file and the entry: a missing or malformed file, missing or duplicate entries, references to unknown images or
    categories, numbers that are none, file names that leave the image folder, images missing on the disk, and classes
    that the file does not have in that order (mmdet would mislabel them). Boxes that mmdet ignores (no area, outside
    the image) are counted in one warning. Images without objects are kept, as negatives, unless ``filter_cfg`` drops
    them.

    Images are loaded with checks, too, and one that cannot be used does not end the training: :class:`CheckedImages`.
    """

    def COCOAPI(self, annotation_file: str) -> COCO:  # noqa: N802  (what CocoDataset calls to read its file)
        """Reads and checks the annotation file."""
        content = coco_checks.read_annotations(annotation_file, need_annotations=not self.test_mode)
        coco_checks.check_entries(content, annotation_file, for_evaluation=self.test_mode)
        ignored = coco_checks.check_classes(content, self.metainfo['classes'], annotation_file)
        dropped = coco_checks.find_unusable_boxes(content)
        if content['annotations'] and not self.test_mode and len(dropped) == len(content['annotations']):
            raise InputError(f'{annotation_file}: not one of its {len(dropped)} boxes is usable (inside its image, at '
                             f'least one pixel wide and high, with an area)')
        for summary in (coco_checks.summarise_boxes(dropped), ignored):
            if summary:
                print_log(f'{annotation_file}: {summary}', logger='current', level=logging.WARNING)

        folder = self.data_prefix.get('img', '')
        coco_checks.check_file_names(content['images'], annotation_file)
        if isinstance(get_file_backend(folder, backend_args=self.backend_args), LocalBackend):
            coco_checks.check_images_exist(content['images'], folder, annotation_file)

        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
        return coco
