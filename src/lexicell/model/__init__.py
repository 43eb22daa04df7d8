"""The network: count classes, embeddings, trunk, heads, losses, and how weights are kept."""
