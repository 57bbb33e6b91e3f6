"""What lets mmdet 3.3 run on current PyTorch, with nothing compiled.

:func:`install` is called when :mod:`mmmamba` is imported, before mmdet's models are, and sees to three things:

- **mmcv's operators.** ``mmdet.models`` imports ``mmcv.ops``, which needs the compiled module ``mmcv._ext``. With full
  mmcv installed, nothing of it is touched. With mmcv-lite, :mod:`mmmamba.compat.mmcv_ext` takes the module's place.
  Modules that use ``mmcv.ops`` (``mmdet.models``, ``mmdet.apis``) thus have to be imported after ``mmmamba``.
- **Resume.** ``torch.load`` refuses mmengine's checkpoints, and OneDL's mmengine runs the code in those it refuses:
  :mod:`mmmamba.compat.safe_globals`.
- **Configs that inherit mmdet's.** mmengine looks packages up with a module that current setuptools lacks:
  :mod:`mmmamba.compat.package_lookup`.
"""
import sys
from importlib.util import find_spec

from mmmamba.compat.package_lookup import supply_package_lookup
from mmmamba.compat.safe_globals import allow_checkpoint_globals, read_checkpoints_once


def install() -> None:
    """Supplies what is missing, and only that. Calling it twice is harmless."""
    if find_spec('mmcv') is not None and find_spec('mmcv._ext') is None:
        from mmmamba.compat.mmcv_ext import MMCVExtension

        sys.modules['mmcv._ext'] = MMCVExtension()
    allow_checkpoint_globals()
    read_checkpoints_once()
    supply_package_lookup()
