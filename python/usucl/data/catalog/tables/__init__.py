"""The tables beside videos, which people write with spreadsheets, and the one of a run's split."""
