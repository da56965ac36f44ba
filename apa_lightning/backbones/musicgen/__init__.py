"""MusicGen (arXiv 2306.05284) through transformers."""
