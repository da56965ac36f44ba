"""The source itself: all fidelity, no transfer."""

from collections.abc import Sequence

from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.editing.source import Recording
from apa_lightning.evaluation.systems.system import System


class NoOp(System):
    """The source at its own rate, stereo where it and the backbone are."""

    name = "no_op"
    description = "the source itself"
    parts = ("backbone",)

    def edit(self, editor: AudioEditor, requests: Sequence[EditRequest]) -> list[EditResult]:
        """The sources."""
        sources = [Recording.load(request.audio) for request in requests]
        return [
            EditResult(request, source.sound(editor.backbone.audio_channels).clone(), source.sample_rate)
            for request, source in zip(requests, sources, strict=True)
        ]
