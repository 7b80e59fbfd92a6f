"""Both models' steps in one form."""
