"""How fast meta-learning by gradients is."""
