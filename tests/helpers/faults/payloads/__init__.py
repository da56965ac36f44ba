"""Hostile files, settings and names, all of them harmless: what executes one leaves a marker file, and does nothing else."""
