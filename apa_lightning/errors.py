"""Errors that a user can correct: one message with the field, the value and the way out.

How a field is spelled. A message names a field at the start of a line (``prompt: 5; give a string``), or in backticks
(``choose another `output` folder``), always by its bare name: what a caller from Python types. Problems of a manifest put
the file and line first (``edits.csv:3: seed: 1.5; give a whole number``): there it is the column's name. Only the command
line rewrites messages: ``apa_lightning.cli.messages`` turns the bare name of a setting of the running command, in these two
places, into its flag (``--data.prompt: 5; ...``, ``choose another --data.output folder``).
"""


class InputError(ValueError):
    """A file, setting or prompt that cannot be used. The command line prints its message and exits with 2."""


class AudioError(InputError):
    """An audio file or waveform that cannot be used."""
