"""Expanding, depthwise and reducing convolution as one operation."""
from mmmamba.ops.inverted_bottleneck.interface import inverted_bottleneck

__all__ = ['inverted_bottleneck']
