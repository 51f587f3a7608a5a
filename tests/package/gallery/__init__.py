"""Tests of the gallery; a package, as its test_build.py is not the only one there is."""
