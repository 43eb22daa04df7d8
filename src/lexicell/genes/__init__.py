"""Genes as words: species, the lexicon, and gene tables."""
