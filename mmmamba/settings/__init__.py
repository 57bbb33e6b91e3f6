"""Settings by name: functions from a config to a config, each for one setting in all its places."""
from mmmamba.settings.config_file import config_next_to, load_config, require_carried_over
from mmmamba.settings.data import (
    class_names,
    with_batch_size,
    with_classes,
    with_data_root,
    with_metainfo,
    with_workers,
)
from mmmamba.settings.fine_tuning import with_frozen, with_weights
from mmmamba.settings.image_size import image_size, with_image_size
from mmmamba.settings.schedule import with_early_stopping, with_epochs, with_learning_rate

__all__ = [
    'class_names', 'config_next_to', 'image_size', 'load_config', 'require_carried_over', 'with_batch_size',
    'with_classes', 'with_data_root', 'with_early_stopping', 'with_epochs', 'with_frozen', 'with_image_size',
    'with_learning_rate', 'with_metainfo', 'with_weights', 'with_workers'
]
