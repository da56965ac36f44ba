"""Codes of audio that are drawn one after the other: delay pattern, loss and the sampling loop. It knows no backbone."""
