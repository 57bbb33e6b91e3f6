"""The 1x1 convolution with what stands around it in a block."""
from mmmamba.ops.pointwise_conv.interface import pointwise_conv

__all__ = ['pointwise_conv']
