"""apa_lightning: train, evaluate and use Audio Prompt Adapters (arXiv 2407.16564) for editing music by text."""

import os
from typing import TYPE_CHECKING

import lazy_loader

# A thread of torch's libgomp that waits for another one spins 300,000 times by default. Where another busy process has taken the
# other thread's core, both processes slow down many times (docs/performance.md). libgomp reads this when torch is imported.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "3000"

if TYPE_CHECKING:
    from apa_lightning.adapters.audio_prompt import AudioPromptAdapter as AudioPromptAdapter
    from apa_lightning.adapters.base import Adapter as Adapter
    from apa_lightning.adapters.projected import ProjectedAdapter as ProjectedAdapter
    from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone as AudioLDM2Backbone
    from apa_lightning.backbones.base import Backbone as Backbone
    from apa_lightning.backbones.diffusion import DiffusionBackbone as DiffusionBackbone
    from apa_lightning.backbones.musicgen.backbone import MusicgenBackbone as MusicgenBackbone
    from apa_lightning.backbones.stable_audio import StableAudioBackbone as StableAudioBackbone
    from apa_lightning.conditioning.audio_mae import AudioMAE as AudioMAE
    from apa_lightning.conditioning.base import AudioConditioner as AudioConditioner
    from apa_lightning.editing.editor import AudioEditor as AudioEditor
    from apa_lightning.editing.request import EditRequest as EditRequest
    from apa_lightning.editing.request import EditResult as EditResult
    from apa_lightning.errors import InputError as InputError
    from apa_lightning.module import AudioPromptModule as AudioPromptModule

# Names load on first use: importing the editor imports neither Lightning nor TensorBoard.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapters.audio_prompt": ["AudioPromptAdapter"],
        "adapters.base": ["Adapter"],
        "adapters.projected": ["ProjectedAdapter"],
        "backbones.audioldm2": ["AudioLDM2Backbone"],
        "backbones.base": ["Backbone"],
        "backbones.diffusion": ["DiffusionBackbone"],
        "backbones.musicgen.backbone": ["MusicgenBackbone"],
        "backbones.stable_audio": ["StableAudioBackbone"],
        "conditioning.audio_mae": ["AudioMAE"],
        "conditioning.base": ["AudioConditioner"],
        "editing.editor": ["AudioEditor"],
        "editing.request": ["EditRequest", "EditResult"],
        "errors": ["InputError"],
        "module": ["AudioPromptModule"],
    },
)
__version__ = "0.1.0"
