"""What all meta-learning agents share: training loop, batches, files, evaluation, checks."""
