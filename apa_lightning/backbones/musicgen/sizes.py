"""MusicGen folders with random weights, in the hub's own layout, from the real classes at any size."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
    T5Tokenizer,
)

from apa_lightning.adapters.base import AttentionLayer
from apa_lightning.backbones.architectures import (
    AUDIOLDM2_LARGE,
    TINY,
    Architecture,
    Sizes,
    save_audio_encoder,
    t5_tokenizer,
)
from apa_lightning.backbones.musicgen.attention import adaptable_layers
from apa_lightning.utils.pretrained import no_progress_bars, only_errors

T5_BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
#: EnCodec at 32 kHz, 50 frames a second, one bandwidth.
CODEC: Sizes = {"sampling_rate": 32_000, "upsampling_ratios": [8, 5, 4, 4], "target_bandwidths": [2.2]}
CODEC |= {"use_causal_conv": False, "num_filters": 64, "codebook_size": 2048, "normalize": False}


@dataclass(frozen=True)
class MusicgenSizes:
    """Configuration arguments of each part's class; what is not named keeps the class's default, that of the small model."""

    name: str
    decoder: Sizes
    t5: Sizes = field(default_factory=lambda: dict(T5_BASE))
    codec: Sizes = field(default_factory=dict)
    audio_encoder: Architecture = AUDIOLDM2_LARGE
    part: ClassVar[str] = "decoder"

    def config(self, tokenizer: T5Tokenizer | None = None) -> MusicgenConfig:
        """The configuration, with the vocabulary of ``tokenizer``."""
        own = {} if tokenizer is None else {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        codec = EncodecConfig(**{**CODEC, **self.codec})
        vocabulary = codec.codebook_size
        decoder = MusicgenDecoderConfig(
            vocab_size=vocabulary, pad_token_id=vocabulary, bos_token_id=vocabulary, **self.decoder
        )
        parts: Any = {"text_encoder": T5Config(**own, **self.t5), "audio_encoder": codec, "decoder": decoder}
        parts = {name: part.to_dict() for name, part in parts.items()}
        return MusicgenConfig(**parts)

    def adapted_model(self, folder: Path | None = None) -> tuple[Any, dict[str, AttentionLayer]]:
        """The decoder of these sizes, or of a folder's ``config.json``, and its adapted layers by name."""
        with only_errors():
            config = self.config() if folder is None else MusicgenConfig.from_pretrained(folder)
            model = MusicgenForConditionalGeneration(config)
        return model.decoder, adaptable_layers(model)

    def save_random(self, folder: Path, seed: int = 0) -> None:
        """Write a randomly initialized folder, and next to its files ``audio_encoder/`` in timm's layout."""
        tokenizer = t5_tokenizer()
        with torch.random.fork_rng(devices=[]), no_progress_bars(), only_errors():
            torch.manual_seed(seed)
            model: Any = MusicgenForConditionalGeneration(self.config(tokenizer))
            for layer in model.audio_encoder.quantizer.layers:
                layer.codebook.embed.normal_()  # zeros by themselves: every code would sound alike
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            encoder = self.audio_encoder.build_audio_encoder()
        save_audio_encoder(encoder, folder / "audio_encoder", self.audio_encoder.audio_encoder_sizes())


MUSICGEN_SMALL = MusicgenSizes("musicgen-small", {})
ARCHITECTURES = {
    sizes.name: sizes
    for sizes in (
        MUSICGEN_SMALL,
        MusicgenSizes(
            "musicgen-medium",
            {"hidden_size": 1536, "num_hidden_layers": 48, "num_attention_heads": 24, "ffn_dim": 6144},
        ),
        MusicgenSizes(
            "musicgen-large",
            {"hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "ffn_dim": 8192},
        ),
        MusicgenSizes(
            "musicgen-tiny",
            # The default initializer_range of 0.02 would draw all codes alike.
            {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "ffn_dim": 64,
                "initializer_range": 0.3,
            },
            {"d_model": 48, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2},
            {"num_filters": 4, "hidden_size": 8, "codebook_size": 64, "codebook_dim": 8, "num_lstm_layers": 1}
            | {"target_bandwidths": [1.2]},
            TINY,
        ),
    )
}
