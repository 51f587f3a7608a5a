"""Pretraining methods side by side: the same data, encoder and steps, with another loss."""
