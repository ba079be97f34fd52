"""Kernels, beyond what tests/test_catalogue.py holds them to."""
