"""Tests of the bank's commands; a package, as its test_build.py is not the only one there is."""
