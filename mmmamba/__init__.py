"""Mamba YOLO and other state-space detectors for MMDetection.

Importing this package registers every model, transform and hook in mmdet's registries, so that a config needs only
``custom_imports = dict(imports=['mmmamba'])``. Where mmdet or mmcv is not installed, :mod:`mmmamba.ops` and
:mod:`mmmamba.layers`, which need nothing but PyTorch, still work.
"""
from importlib.util import find_spec

from mmmamba.version import __version__

__all__ = ['__version__']

if find_spec('mmdet') and find_spec('mmcv'):
    from mmmamba import compat

    compat.install()
    from mmmamba import datasets, engine, models  # noqa: F401  (imported for their registrations)


def __getattr__(name: str) -> object:
    if name == 'Detector':  # only now: it needs mmdet, and the time to import it
        from mmmamba.analysis.inference import Detector

        return Detector
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
