"""Edit a recording by text: ``python examples/edit.py piano.wav "a recording of a violin solo" violin.wav``."""

import sys

from apa_lightning import AudioEditor

recording, prompt, output = sys.argv[1:]
editor = AudioEditor.from_pretrained()  # the pocket backbone; or give a folder or hub id, and an adapter for it
result = editor.edit(recording, prompt=prompt)
result.save(output)
