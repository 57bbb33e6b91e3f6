"""The truth that runs are compared with, in COCO's format whatever the data set's own is."""
from __future__ import annotations

import json
from pathlib import Path

from mmdet.registry import DATASETS
from mmengine.config import Config

from mmmamba.files import write_atomically


def use_coco_metric(cfg: Config, truth: Path) -> None:
    """Evaluates a config by COCO's AP, on a translation of its test set where that has another format.

    Objects that are to be ignored, VOC's difficult ones, become crowds.

    Args:
        cfg: Changed in place: both evaluators, where they are not CocoMetric.
        truth: The file to which a translation is written.
    """
    if cfg.test_evaluator.type == 'CocoMetric':
        return
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    images: list[dict] = []
    annotations: list[dict] = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        name = Path(info['img_path']).relative_to(dataset.data_root)
        images.append(dict(id=info['img_id'], file_name=str(name), width=info['width'], height=info['height']))
        for instance in info['instances']:
            left, top, right, bottom = instance['bbox']
            width, height = right - left, bottom - top
            annotations.append(dict(
                id=len(annotations) + 1, image_id=info['img_id'], category_id=instance['bbox_label'] + 1,
                bbox=[left, top, width, height], area=width * height, iscrowd=instance['ignore_flag']))
    categories = [dict(id=label, name=name) for label, name in enumerate(dataset.metainfo['classes'], start=1)]
    write_atomically(truth, json.dumps(
        dict(images=images, annotations=annotations, categories=categories)).encode())
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=str(truth), metric='bbox', proposal_nums=(100, 1, 10))
    cfg.test_evaluator = dict(cfg.val_evaluator)


def truth_of(cfg: Config) -> tuple[Path, Path]:
    """The annotation file of a config's test set, and the folder of its images.

    Args:
        cfg: With CocoMetric as evaluator.
    """
    dataset = cfg.test_dataloader.dataset
    return Path(cfg.test_evaluator.ann_file), Path(dataset.data_root, dataset.data_prefix.get('img', ''))
