"""Training: a pure step, one loop that reads top to bottom, and the state between them."""
