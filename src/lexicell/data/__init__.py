"""From files to batches: the corpus, the store, gene sampling and loading."""
