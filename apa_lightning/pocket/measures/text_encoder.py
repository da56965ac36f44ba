"""What the pocket text encoder keeps of a prompt."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from torch import Tensor

from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.parts.text_encoder import mean_state
from apa_lightning.pocket.report.figures import Clips, Figure
from apa_lightning.pocket.report.text_probe import text_figures
from apa_lightning.utils.pretrained import frozen, no_progress_bars


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Figure]:
    """A linear probe's instrument, genre and task from T5's mean state, in wordings that the probe never saw.

    Args:
        folder: holds ``tokenizer_2`` and ``text_encoder_2``. clips: their prompts show the label templates.
        seed: of the untrained encoder and the intervals. pictures, recordings: not used.

    Raises:
        InputError: ``folder`` lacks a part.
    """
    require(folder, ("tokenizer_2", "text_encoder_2"))
    with no_progress_bars():
        tokenizer = transformers.T5Tokenizer.from_pretrained(folder / "tokenizer_2")
        model = transformers.T5EncoderModel.from_pretrained(folder / "text_encoder_2", dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = transformers.T5EncoderModel(model.config)
    return text_figures("text_encoder", MeanState(tokenizer, model), MeanState(tokenizer, untrained), seed)


class MeanState:
    """The mean over its tokens of T5's states of a text: B texts -> (B, D), on the CPU."""

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
