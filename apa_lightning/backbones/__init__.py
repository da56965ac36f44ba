"""Frozen text-to-music models behind one interface."""
