"""The pocket backbone: an AudioLDM2 of a few million parameters that this project trains itself.

It has the diffusers, transformers and timm classes of ``cvssp/audioldm2-large``, the same folder layout, and the sizes of
:data:`apa_lightning.backbones.architectures.POCKET`. One module trains each part (``python -m apa_lightning fit --config
configs/pocket/<part>.yaml``) and writes it into one folder; :class:`PocketReport` measures that folder. ``weights/`` is such a
folder, with an adapter: the source ``embedded`` everywhere.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "instrument_judge": ["InstrumentJudge"],
        "parts.audio_mae": ["PocketAudioMAE"],
        "parts.clap": ["PocketClap"],
        "parts.judge": ["PocketJudge"],
        "parts.loa": ["PocketLOA"],
        "parts.text_encoder": ["PocketTextEncoder"],
        "parts.unet": ["PocketUNet"],
        "parts.vae": ["PocketVAE"],
        "parts.vocoder": ["PocketVocoder"],
        "report.report": ["PocketReport"],
        "target_recognized": ["TargetRecognized"],
        "text.prompts": ["GENRES", "INSTRUMENTS"],
        "window_encoder": ["WindowEncoder"],
    },
)
