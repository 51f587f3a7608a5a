"""What the method gains on real and synthetic sweeps: experiments, and their tables.

The YAML files are presets of ``usucl compare``; ``docs/evidence.md`` says what came out.
"""
