"""The pocket backbone: an AudioLDM2 of a few million parameters that this project trains itself.

Same diffusers, transformers and timm classes as ``cvssp/audioldm2-large``, same folder layout, sizes of
:data:`apa_lightning.backbones.architectures.POCKET`. One module trains each part (``python -m apa_lightning fit --config
configs/pocket/<part>.yaml``) and writes it into one folder; :mod:`apa_lightning.pocket.report.report` measures that folder.
``weights/`` is such a folder, with an adapter: what ``embedded`` means everywhere.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "parts.audio_mae": ["PocketAudioMAE"],
        "parts.clap": ["PocketClap"],
        "parts.judge": ["PocketJudge"],
        "parts.loa": ["PocketLOA"],
        "parts.text_encoder": ["PocketTextEncoder"],
        "parts.unet": ["PocketUNet"],
        "parts.vae": ["PocketVAE"],
        "parts.vocoder": ["PocketVocoder"],
        "report.report": ["PocketReport"],
    },
)
