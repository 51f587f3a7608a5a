"""Measurements of the loss against what would be used instead: ``python -m benchmarks``.

Imports run in one direction: rows -> harness, problems -> eager -> providers -> suite -> __main__;
and, from the file that was written, rows -> targets -> plots -> report.

``python -m benchmarks.gpu`` runs everything that needs a GPU: triton_search, chunked_search ->
gpu_peers -> gpu_machine, gpu_clock -> gpu_loss -> gpu_kernels -> gpu_stages, by name -> gpu, and
rows -> gpu_report. docs/gpu-runbook.md says what to make of its figures.

``python -m benchmarks.cuda_binary`` reads the CUDA library, ``python -m
benchmarks.cuda_prediction`` predicts the time of its dense pass.
"""
