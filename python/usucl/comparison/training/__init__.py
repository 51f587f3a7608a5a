"""How an arm comes to its encoder."""
