"""Diffusion: objectives, guidance, windows, schedulers and the denoising loop. It knows no backbone."""
