"""Linear probes on the mean state of the text encoder."""

from collections.abc import Sequence

import torch
import transformers
from torch import Tensor

from apa_lightning.pocket.assembly import load_frozen, load_processor, untrained
from apa_lightning.pocket.measures.text_probe import text_scores
from apa_lightning.pocket.parts.text_encoder import mean_state
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.utils.pretrained import frozen


def measure(subject: Subject) -> list[Score]:
    """Measure whether a probe reads instrument, genre and task of captions; clips and recordings are not used."""
    tokenizer = load_processor(subject.folder, "tokenizer_2")
    trained = MeanState(tokenizer, load_frozen(subject.folder, "text_encoder_2"))
    random = MeanState(tokenizer, untrained(subject.folder, "text_encoder_2", subject.seed))
    return text_scores("text_encoder", trained, random, subject.seed)


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
