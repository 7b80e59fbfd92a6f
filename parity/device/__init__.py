"""The report on a machine: CPU against GPU, Keras against PyTorch, on every network."""
