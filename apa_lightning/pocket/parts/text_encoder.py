"""Training the pocket text encoder: T5 (arXiv 1910.10683) fills in and restates prompts, then loses its decoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor

from apa_lightning.backbones.architectures import POCKET
from apa_lightning.pocket.assembly import save_half
from apa_lightning.pocket.parts.part import FOLDER, PocketPart, check, share
from apa_lightning.pocket.text.span_corruption import span_corruption
from apa_lightning.pocket.text.tokenizers import SENTINELS, t5_tokenizer
from apa_lightning.utils.rng import generator_for, seeded

IGNORED = -100  # transformers' mark of a label without loss


class PocketTextEncoder(PocketPart):
    """Trains a ``T5ForConditionalGeneration`` on two of T5's kinds of task and writes its encoder and tokenizer.

    Some captions lose spans that the decoder fills in; the others are restated in one plain wording of their meaning, for
    which the decoder reads only the mean of the encoder's states (as in Sentence-T5, arXiv 2108.08877): so captions of the
    same meaning become alike. Spans alone are not enough: no context determines an instrument's name, so the encoder soon
    forgets the names that it reads. Batches need ``prompt`` and ``plain``.

    Args:
        folder: Folder of the pocket backbone.
        restated: Share of captions to restate.
        noise_density: Share of the other captions' tokens that is missing; T5's 0.15 would be one word of most.
        mean_span: Mean length in tokens of a missing span.
        **schedule: Settings of :class:`PocketPart`.
    """

    writes = ("tokenizer_2", "text_encoder_2")

    def __init__(
        self,
        folder: Path = FOLDER,
        restated: float = 0.5,
        noise_density: float = 0.25,
        mean_span: float = 2.0,
        **schedule: Any,
    ):
        super().__init__(folder, **schedule)
        self.restated, rule = share("restated", restated), "it must be above 0 and below 1."
        self.noise_density = check("noise_density", noise_density, 0 < noise_density < 1, rule)
        self.mean_span = check("mean_span", mean_span, mean_span >= 1, "it must be at least 1 token.")
        self.tokenizer = t5_tokenizer()
        self.sentinels = [cast(int, self.tokenizer.convert_tokens_to_ids(f"<extra_id_{i}>")) for i in range(SENTINELS)]
        with seeded(self.seed):
            self.model = transformers.T5ForConditionalGeneration(POCKET.t5_config(self.tokenizer)).train()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        generator = self.draws("spans")
        restated = torch.rand(len(batch["prompt"]), generator=generator) < self.restated
        inputs = self.tasks(batch["prompt"], batch["plain"], restated.tolist(), generator)
        with self.dropout_draws():
            loss = self.answer(inputs, restated).loss
        self.log_scores("train", {"loss": loss}, len(restated))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Both tasks on every caption; ``val/restated`` is the share of captions restated without a wrong token."""
        count = len(batch["prompt"])
        generator = generator_for(self.seed, "validation", batch_idx)
        none, whole = torch.zeros(count, dtype=torch.bool), torch.ones(count, dtype=torch.bool)
        filled = self.answer(self.tasks(batch["prompt"], batch["plain"], none.tolist(), generator), none)
        inputs = self.tasks(batch["prompt"], batch["plain"], whole.tolist(), generator)
        output = self.answer(inputs, whole)
        right = (output.logits.argmax(-1) == inputs["labels"]) | (inputs["labels"] == IGNORED)
        scores = {
            "loss": self.restated * output.loss + (1 - self.restated) * filled.loss,
            "loss_spans": filled.loss,
            "loss_restated": output.loss,
            "restated": right.all(-1).float().mean(),
        }
        self.log_scores("val", scores, count)

    def answer(self, inputs: dict[str, Tensor], restated: Tensor) -> Any:
        """The decoder's output for :meth:`tasks`; of the ``restated`` captions (B,) it reads the mean state alone."""
        mask = inputs["attention_mask"]
        states = self.model.encoder(inputs["input_ids"], attention_mask=mask).last_hidden_state
        mean = mean_state(states, mask)[:, None].expand_as(states)
        seen = torch.where(restated.to(states.device)[:, None, None], mean, states)
        return self.model(encoder_outputs=(seen,), attention_mask=mask, labels=inputs["labels"])

    def tasks(
        self, prompts: Sequence[str], plain: Sequence[str], restated: Sequence[bool], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Inputs and targets of B prompts: ``input_ids``, ``attention_mask`` (B, L) and ``labels`` (B, M)."""
        pairs = []
        for row, wording, whole in zip(self._ids(prompts), self._ids(plain), restated, strict=True):
            corrupted = span_corruption(row, self.sentinels, self.noise_density, self.mean_span, generator)
            pairs.append((row, wording) if whole else corrupted)
        end = [self.tokenizer.eos_token_id]
        inputs, targets = zip(*((torch.tensor(a + end), torch.tensor(b + end)) for a, b in pairs), strict=True)
        ids = torch.nn.utils.rnn.pad_sequence(list(inputs), True, self.tokenizer.pad_token_id)
        labels = torch.nn.utils.rnn.pad_sequence(list(targets), True, IGNORED)
        mask = (ids != self.tokenizer.pad_token_id).long()
        tensors = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=96).input_ids

    def write(self, folder: Path) -> None:
        encoder = transformers.T5EncoderModel(self.model.config)
        encoder.shared.load_state_dict(self.model.shared.state_dict())
        encoder.encoder.load_state_dict(self.model.encoder.state_dict())
        save_half(encoder, folder / "text_encoder_2")
        self.tokenizer.save_pretrained(folder / "tokenizer_2")


def mean_state(states: Tensor, mask: Tensor) -> Tensor:
    """The mean (B, D) of the states (B, L, D) of those tokens that ``mask`` (B, L) counts."""
    weights = mask[..., None].to(states)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)
