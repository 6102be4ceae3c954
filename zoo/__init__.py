"""Experiments: train, evaluate and compare agents, from Python or the command line."""
