"""Assigners."""
from mmmamba.models.task_modules.batch_task_aligned_assigner import BatchAssignment, BatchTaskAlignedAssigner

__all__ = ['BatchAssignment', 'BatchTaskAlignedAssigner']
