"""The detector of a config file."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn

from mmmamba.errors import InputError
from mmmamba.model_config import drop_pretrained


def model_config(path: str) -> ConfigDict:
    """The detector's config in a config file.

    Raises:
        InputError: The file has none, is of another kind, or cannot be read as a config.
    """
    try:
        config = Config.fromfile(path)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, NameError) as error:  # the first is what mmengine says to a file of another kind
        raise InputError(f'{path} is no config: {error}') from error
    if 'model' not in config:
        raise InputError(f'{path} has no model')
    init_default_scope(config.get('default_scope', 'mmdet'))
    return config.model


def build_detector(path: str) -> nn.Module:
    """The detector of a config with random weights instead of trained ones; what the config freezes stays frozen.

    Raises:
        InputError: As of :func:`model_config`.
    """
    model = model_config(path)
    drop_pretrained(model)
    detector = MODELS.build(model)
    with _quiet():
        detector.init_weights()
    return detector


@contextmanager
def _quiet() -> Iterator[None]:
    """mmengine reports every parameter's initialisation."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)
