"""Measurements of the loss against what would be used instead: ``python -m benchmarks``.

Imports run in one direction: rows -> harness, problems -> eager -> providers -> suite -> __main__;
and, from the file that was written, rows -> targets -> plots -> tables -> report.
"""
