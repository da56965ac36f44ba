"""Linear probes on the mean state of the text encoder."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from torch import Tensor

from apa_lightning.pocket.loading import load_frozen, untrained
from apa_lightning.pocket.parts.text_encoder import mean_state
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.report.text_probe import text_scores
from apa_lightning.utils.pretrained import frozen, no_progress_bars


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Score]:
    """Measure whether a probe reads instrument, genre and task of captions; clips and recordings are not used."""
    model = load_frozen(folder, "text_encoder_2")
    with no_progress_bars():
        tokenizer = transformers.T5Tokenizer.from_pretrained(folder / "tokenizer_2")
    other = untrained(folder, "text_encoder_2", seed)
    return text_scores("text_encoder", MeanState(tokenizer, model), MeanState(tokenizer, other), seed)


class MeanState:
    """Embeds B texts as the mean (B, D) of T5's states over their tokens, on the CPU."""

    def __init__(self, tokenizer: transformers.T5Tokenizer, model: transformers.T5EncoderModel):
        self.tokenizer, self.model = tokenizer, frozen(model)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        parts = []
        for start in range(0, len(texts), 128):
            rows = list(texts[start : start + 128])
            tokens = self.tokenizer(rows, padding=True, truncation=True, return_tensors="pt")
            states = self.model(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
            parts.append(mean_state(states, tokens.attention_mask))
        return torch.cat(parts)
