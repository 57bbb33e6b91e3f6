"""mmengine's log of numbers, in JSON that every reader takes."""
from __future__ import annotations

from mmdet.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend

from mmmamba.files import finite


@VISBACKENDS.register_module()
class StrictLocalVisBackend(LocalVisBackend):
    """mmengine's ``LocalVisBackend`` (same arguments), whose ``scalars.json`` has null for a NaN or an infinity.

    The gradients' norm is one of them whenever float16 overflows, which is normal, and so is the precision of a class
    that the validation set does not have. Bare ``NaN`` and ``Infinity`` are no JSON.
    """

    def _dump(self, value_dict: dict, file_path: str, file_format: str) -> None:
        super()._dump(finite(value_dict), file_path, file_format)
