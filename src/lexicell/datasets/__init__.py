"""Public data sets behind one registry, and simulated ones with known truth."""
