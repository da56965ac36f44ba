"""The whole table of bad inputs."""

from bad_inputs import audio, edits, folders, settings, shards, weights

CASES = [*audio.CASES, *shards.CASES, *edits.CASES, *settings.CASES, *weights.CASES, *folders.CASES]
