"""Losses, optimizers and running statistics: why two trainings part."""
