"""Measurements of the loss against PyTorch: ``python -m benchmarks`` or ``usucl bench``."""
