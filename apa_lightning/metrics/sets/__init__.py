"""Distances between two sets of embeddings: edits against reference recordings."""
