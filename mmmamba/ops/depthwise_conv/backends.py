"""The backends of the depthwise convolution, in order of preference."""
from mmmamba.ops.depthwise_conv import cpu_backend, torch_backend

BACKENDS = (cpu_backend.BACKEND, torch_backend.BACKEND)
