"""Stable Audio folders with random weights, in the hub's own layout, from the real classes at any size."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderOobleck, StableAudioDiTModel, StableAudioProjectionModel
from transformers import T5Config, T5EncoderModel

from apa_lightning.adapters.base import AttentionLayer
from apa_lightning.backbones.architectures import Sizes, build_audio_encoder, save_audio_encoder, t5_tokenizer
from apa_lightning.backbones.stable_audio import adapted_layers
from apa_lightning.utils.pretrained import no_progress_bars, only_errors

#: The schedule of the published model.
SCHEDULER = {"sigma_min": 0.3, "sigma_max": 500, "sigma_data": 1.0, "sigma_schedule": "exponential"}
SCHEDULER |= {"prediction_type": "v_prediction", "solver_order": 2, "num_train_timesteps": 1000}
INDEX = {
    "transformer": ["diffusers", "StableAudioDiTModel"],
    "vae": ["diffusers", "AutoencoderOobleck"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "projection_model": ["stable_audio", "StableAudioProjectionModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "scheduler": ["diffusers", "CosineDPMSolverMultistepScheduler"],
}


@dataclass(frozen=True)
class StableAudioSizes:
    """Configuration arguments of each part's class; what is not named keeps the class's default, the published size."""

    name: str
    transformer: Sizes = field(default_factory=dict)
    vae: Sizes = field(default_factory=dict)
    t5: Sizes = field(
        default_factory=lambda: {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
    )
    audio_encoder: Sizes = field(default_factory=lambda: {"embed_dim": 768, "depth": 12, "num_heads": 12})
    part: ClassVar[str] = "DiT"

    def adapted_model(self, folder: Path | None = None) -> tuple[Any, dict[str, AttentionLayer]]:
        """The transformer of these sizes, or of a folder's config files, and its adapted layers by name.

        Raises:
            FileNotFoundError: If the folder holds no transformer's configuration.
        """
        if folder is not None and not (folder / "transformer" / "config.json").is_file():
            raise FileNotFoundError(f"folder: {folder} holds no transformer/config.json; give a Stable Audio folder.")
        config = self.transformer if folder is None else StableAudioDiTModel.load_config(folder / "transformer")
        transformer = StableAudioDiTModel.from_config(config)
        return transformer, adapted_layers(transformer)

    def save_random(self, folder: Path, seed: int = 0) -> None:
        """Write a randomly initialized folder, and next to its parts ``audio_encoder/`` in timm's layout."""
        tokenizer = t5_tokenizer()
        width = self.transformer.get("cross_attention_input_dim", 768)
        t5 = T5Config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **self.t5)
        with torch.random.fork_rng(devices=[]), no_progress_bars(), only_errors():
            torch.manual_seed(seed)
            parts: dict[str, Any] = {
                "transformer": StableAudioDiTModel(**self.transformer),
                "vae": AutoencoderOobleck(**self.vae),
                "text_encoder": T5EncoderModel(t5),
                "projection_model": StableAudioProjectionModel(self.t5["d_model"], width, min_value=0, max_value=512),
                "tokenizer": tokenizer,
            }
            for name, part in parts.items():
                part.save_pretrained(folder / name)
            encoder = {"img_size": [1024, 128], "in_chans": 1, **self.audio_encoder}
            save_audio_encoder(build_audio_encoder(encoder), folder / "audio_encoder", encoder)
        files: dict[str, Any] = {"model_index.json": {"_class_name": "StableAudioPipeline", **INDEX}}
        files["scheduler/scheduler_config.json"] = {"_class_name": INDEX["scheduler"][1], **SCHEDULER}
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(content, indent=2))


STABLE_AUDIO_OPEN = StableAudioSizes("stable-audio-open")
#: For tests: a window of 2.97 s, and an audio encoder of 1.28 s.
TINY = StableAudioSizes(
    "stable-audio-tiny",
    transformer={
        "sample_size": 64,
        "in_channels": 8,
        "out_channels": 8,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "num_key_value_attention_heads": 2,
        "cross_attention_dim": 16,
        "cross_attention_input_dim": 16,
        "global_states_input_dim": 32,
        "time_proj_dim": 16,
    },
    vae={
        "encoder_hidden_size": 16,
        "channel_multiples": [1, 1, 1, 1, 1],
        "decoder_channels": 4,
        "decoder_input_channels": 8,
    },
    t5={"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2},
    audio_encoder={"img_size": [128, 128], "embed_dim": 16, "depth": 4, "num_heads": 2},
)
ARCHITECTURES = {one.name: one for one in (STABLE_AUDIO_OPEN, TINY)}
