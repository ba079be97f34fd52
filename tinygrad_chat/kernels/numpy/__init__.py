"""Kernels for the CPU, in NumPy."""

KERNELS = {}
