"""The depthwise 3x3 convolution with what stands behind it in a block."""
from mmmamba.ops.depthwise_conv.interface import depthwise_conv

__all__ = ['depthwise_conv']
