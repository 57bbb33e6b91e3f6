"""What is done to the config of a detector before it is built."""
from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmmamba.errors import InputError, did_you_mean

# What configs may have besides Runner's arguments, and mmengine, mmdet or our tools read.
_READ_ELSEWHERE = ('activation_checkpointing', 'custom_imports', 'efficient_conv_bn_eval', 'find_unused_parameters',
                   'compile', 'model_wrapper_cfg', 'own_settings', 'runner_type', 'sync_bn', 'tta_model',
                   'tta_pipeline')


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Merges ``--cfg-options`` into a config, in place.

    Args:
        cfg: The config.
        options: Values by dotted names. Lists are not copied.

    Raises:
        InputError: A name begins with a word that neither the config has nor anything reads, so that mmengine would
            accept it without any effect; or it leads through a value that has no parts.
    """
    known = {*cfg, *inspect.signature(Runner).parameters, *_READ_ELSEWHERE}
    for name in options:
        first = name.partition('.')[0]
        if first not in known:
            raise InputError(f'--cfg-options {name}: there is no setting {first}{did_you_mean(first, known, 1)}')
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, TypeError) as error:
        raise InputError(f'--cfg-options: {error.args[0]}') from error


def without_file(cfg: Config) -> Config:
    """Returns a copy of a config without the name of its file.

    Runner then leaves its copy in the work dir under the time of the run, and replaces none of another run's.
    """
    return Config(cfg.to_dict())


def parts(config: Any) -> Iterator[ConfigDict]:
    """Yields a config, such as a model's, and every config inside of it; of a list, those in it."""
    if isinstance(config, dict):
        yield config
    if isinstance(config, (dict, list, tuple)):
        for inner in config.values() if isinstance(config, dict) else config:
            yield from parts(inner)


def set_num_classes(model: ConfigDict, number: int) -> None:
    """Gives every head of a model this number of classes, in place.

    Detectors that read their classes from a text have none: their heads count its words.
    """
    if 'language_model' in model:
        return
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
