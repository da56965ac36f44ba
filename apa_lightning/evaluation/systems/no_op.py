"""The source itself: all fidelity, no transfer."""

from collections.abc import Sequence

from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.editing.source import Recording
from apa_lightning.evaluation.systems.system import System


class NoOp(System):
    """The source, mono at its own rate."""

    name = "no_op"
    description = "the source itself"

    def edit(self, editor: AudioEditor, requests: Sequence[EditRequest]) -> list[EditResult]:
        """The sources."""
        sources = [Recording.load(request.audio) for request in requests]
        return [
            EditResult(request, source.waveform.clone(), source.sample_rate)
            for request, source in zip(requests, sources, strict=True)
        ]
