"""What models cost."""
from mmmamba.analysis.flops import Cost, ModelCost, count_detector, count_flops

__all__ = ['Cost', 'ModelCost', 'count_detector', 'count_flops']
