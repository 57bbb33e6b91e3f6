"""Merging of the predictions of several views of an image."""
from mmmamba.models.test_time_augs.ins_tta import InsTTAModel

__all__ = ['InsTTAModel']
