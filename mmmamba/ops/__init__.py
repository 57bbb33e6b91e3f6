"""State-space scans and the convolutions around them. This package needs PyTorch alone, and can be used alone."""
from mmmamba.ops.depthwise_conv import depthwise_conv
from mmmamba.ops.pointwise_conv import pointwise_conv, split_pointwise_conv
from mmmamba.ops.selective_scan import selective_scan
from mmmamba.ops.ss2d_scan import ss2d_scan

__all__ = ['depthwise_conv', 'pointwise_conv', 'selective_scan', 'split_pointwise_conv', 'ss2d_scan']
