"""The steps of the optimiser: which one, its learning rate, and the batches that make a step."""
