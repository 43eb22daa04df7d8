"""The gene space on arrays: coherence with gene sets, matching across species, specificity, group contrast."""
