"""Points any detection config at a data set in COCO's format."""
from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import Config, ConfigDict

from mmmamba.demo.coco_folder import CocoFolder
from mmmamba.model_config import set_num_classes


def config_for_folder(config: Config, folder: CocoFolder) -> Config:
    """Returns ``config`` for another data set: files, classes, the heads' class count and the evaluators.

    Args:
        config: With a train, a val and a test dataloader of CocoDatasets, and CocoMetric as evaluator.
        folder: The data set; the test split is its val.
    """
    config = Config(config.to_dict())
    for split, loader in (('train', 'train_dataloader'), ('val', 'val_dataloader'), ('val', 'test_dataloader')):
        for dataset in coco_datasets(config[loader].dataset):
            dataset.update(data_root='', ann_file=str(folder.annotations[split].absolute()),
                           data_prefix={'img': f'{(folder.root / split).absolute()}/'},
                           metainfo={'classes': folder.classes})
    for evaluator in (config.val_evaluator, config.test_evaluator):
        evaluator.ann_file = str(folder.annotations['val'].absolute())
    set_num_classes(config.model, len(folder.classes))
    return config


def coco_datasets(dataset: ConfigDict) -> Iterator[ConfigDict]:
    """The data sets with an annotation file, inside whatever wrappers."""
    if 'ann_file' in dataset:
        yield dataset
    for inner in [dataset.get('dataset'), *dataset.get('datasets', [])]:
        if inner is not None:
            yield from coco_datasets(inner)
