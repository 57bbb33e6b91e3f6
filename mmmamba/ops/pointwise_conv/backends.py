"""The backends of the 1x1 convolution, in order of preference."""
from mmmamba.ops.pointwise_conv import cpu_backend, torch_backend

BACKENDS = (cpu_backend.BACKEND, torch_backend.BACKEND)
