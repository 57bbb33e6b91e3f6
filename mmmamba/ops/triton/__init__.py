"""Triton kernels of the fused scan: see README.md in this folder for how it is split into chunks."""
