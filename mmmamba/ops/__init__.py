"""State-space scans and the convolutions around them. This package needs PyTorch alone, and can be used alone."""
from mmmamba.ops.inverted_bottleneck import inverted_bottleneck
from mmmamba.ops.pointwise_conv import pointwise_conv
from mmmamba.ops.selective_scan import selective_scan
from mmmamba.ops.ss2d_scan import ss2d_scan

__all__ = ['inverted_bottleneck', 'pointwise_conv', 'selective_scan', 'ss2d_scan']
