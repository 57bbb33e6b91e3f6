"""Data sets as they lie: whatever format they have becomes COCO annotations, and no file of the user's changes."""
from pathlib import Path

from mmmamba.datasets.formats.coco import find_coco
from mmmamba.datasets.formats.data_folder import DataFolder, Split, coco_datasets, config_for_data

__all__ = ['DataFolder', 'Split', 'coco_datasets', 'config_for_data', 'find_data']


def find_data(path: Path) -> DataFolder:
    """Finds out which format a data set has, and returns it.

    Raises:
        InputError: It has none that is known, or lacks something; one line says what.
    """
    return find_coco(path)
