"""A training run: its recipe, what is optimised, how, and what it leaves in its folder."""
