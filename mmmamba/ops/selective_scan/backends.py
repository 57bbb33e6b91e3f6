"""The backends of the selective scan, in order of preference."""
from mmmamba.ops.selective_scan import cpu_backend, mamba_ssm_backend, reference, torch_backend, triton_backend

BACKENDS = (
    cpu_backend.BACKEND,
    triton_backend.BACKEND,
    torch_backend.BACKEND,
    reference.BACKEND,
    mamba_ssm_backend.BACKEND,
)
