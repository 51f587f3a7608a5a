"""Comparison of pretraining methods: paired runs, differences with intervals, and conclusions."""
