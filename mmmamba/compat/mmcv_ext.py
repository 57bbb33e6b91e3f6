"""Supplies what replaces ``mmcv._ext``, the compiled extension that mmcv-lite lacks."""
from __future__ import annotations

from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Callable, NoReturn

from mmmamba.compat.deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from mmmamba.compat.focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from mmmamba.compat.nms import nms, softnms
from mmmamba.compat.roi_align import roi_align_backward, roi_align_forward


def get_compiler_version() -> str:
    """Returns what mmcv's environment report shows as the compiler of its operators."""
    return 'n/a (mmcv-lite with mmmamba.compat)'


def get_compiling_cuda_version() -> str:
    """Returns what mmcv's environment report shows as the CUDA version of its operators."""
    return 'n/a (mmcv-lite with mmmamba.compat)'


class MMCVExtension(ModuleType):
    """``mmcv._ext`` in PyTorch: supplied operators, and for every other name a function that raises when called.

    ``mmcv.ops`` asks for all of its operators when it is imported, whichever of them a model then calls.

    The module has a spec, as ``importlib.util.find_spec('mmcv._ext')`` demands of a loaded module, but no loader, by
    which mmengine's ``mmcv_full_available`` still tells that the compiled extension is missing.
    """

    def __init__(self) -> None:
        super().__init__('mmcv._ext', 'Stands for the compiled extension of mmcv; supplied by mmmamba.compat.')
        self.__spec__ = ModuleSpec('mmcv._ext', loader=None, origin=__name__)
        for operator in (nms, softnms, roi_align_forward, roi_align_backward, sigmoid_focal_loss_forward,
                         sigmoid_focal_loss_backward, ms_deform_attn_forward, ms_deform_attn_backward,
                         get_compiler_version, get_compiling_cuda_version):
            setattr(self, operator.__name__, operator)

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith('_'):
            raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")
        return _missing_operator(name)


def _missing_operator(name: str) -> Callable[..., NoReturn]:
    def operator(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator '{name}' needs the compiled extension of full mmcv, but only mmcv-lite is installed, "
            f'and mmmamba.compat does not supply this operator. Install full mmcv (build mmcv 2.1.0 with '
            f'MMCV_WITH_OPS=1) instead of mmcv-lite.')

    operator.__name__ = operator.__qualname__ = name
    return operator
