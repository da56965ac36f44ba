"""The source through the backbone's codec, such as VAE and vocoder: the most fidelity that it can reach."""

from collections.abc import Sequence

from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.editing.source import ModelInput, Recording
from apa_lightning.evaluation.systems.system import System


class Codec(System):
    """Round trip through the codec."""

    name = "codec"
    description = "the source through the backbone's codec: the ceiling of fidelity"
    parts = ("backbone",)

    def edit(self, editor: AudioEditor, requests: Sequence[EditRequest]) -> list[EditResult]:
        """The sources, encoded and decoded."""
        results = []
        for request in requests:
            source = ModelInput(Recording.load(request.audio), editor.backbone)
            waveform = source.sound[None].to(editor.backbone.device)
            encoded = editor.backbone.encode_audio(waveform, lengths=[source.samples])
            sound = editor.backbone.decode(encoded)[0].cpu()
            made = source.recording.finish(request, sound, editor.backbone.sample_rate)
            results.append(EditResult(request, *made, backbone=editor.backbone.name))
        return results
