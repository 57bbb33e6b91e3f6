"""The backends of the inverted bottleneck, in order of preference."""
from mmmamba.ops.inverted_bottleneck import cpu_backend, torch_backend

BACKENDS = (cpu_backend.BACKEND, torch_backend.BACKEND)
