"""What is done to the config of a detector before it is built."""
from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import ConfigDict


def parts(model: ConfigDict) -> Iterator[ConfigDict]:
    """A model's config and every config inside of it."""
    yield model
    for value in model.values():
        for inner in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(inner, dict):
                yield from parts(inner)


def set_num_classes(model: ConfigDict, number: int) -> None:
    """Gives every head of a model this number of classes, in place."""
    for part in parts(model):
        if 'num_classes' in part:
            part.num_classes = number


def drop_pretrained(model: ConfigDict) -> None:
    """Takes trained weights out of a model's initialisation, in place; what it freezes stays frozen."""
    for part in parts(model):
        init_cfg = part.get('init_cfg')
        if isinstance(init_cfg, (list, tuple)):
            part.init_cfg = [one for one in init_cfg if one.get('type') != 'Pretrained']
        elif isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            part.init_cfg = None
