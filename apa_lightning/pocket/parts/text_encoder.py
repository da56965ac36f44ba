"""The pocket text encoder: T5 (arXiv 1910.10683) learns to fill in and to restate prompts, then loses its decoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor

from apa_lightning.backbones.architectures import POCKET
from apa_lightning.errors import InputError
from apa_lightning.pocket.parts.part import PocketPart, save_half
from apa_lightning.pocket.text.tokenizers import SENTINELS, t5_tokenizer
from apa_lightning.utils.rng import generator_for

IGNORED = -100  # no loss here: transformers' sign


class PocketTextEncoder(PocketPart):
    """Trains a ``T5ForConditionalGeneration`` on two of T5's kinds of task and writes its encoder and tokenizer.

    Some captions lose spans that the decoder fills in; the others are restated in the one plain wording of their meaning,
    for which the decoder sees the mean of the encoder's states alone (as Sentence-T5 reads them, arXiv 2108.08877): so
    captions that mean the same come out alike. Spans alone are not enough: no context tells an instrument's name, so the
    encoder soon forgets those that it reads. Batches need ``prompt`` and ``plain``.

    Args:
        folder, learning_rate, warmup_steps, weight_decay, betas, seed: as :class:`PocketPart`.
        restated: share of captions to restate.
        noise_density: share of the other captions' tokens that is missing; T5's 0.15 would be one word of most.
        mean_span: mean length in tokens of what is missing in one place.

    Raises:
        InputError: a setting that cannot be.
    """

    writes = ("tokenizer_2", "text_encoder_2")

    def __init__(
        self,
        folder: Path = Path("runs/pocket/model"),
        learning_rate: float = 2e-3,
        warmup_steps: int = 200,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        restated: float = 0.5,
        noise_density: float = 0.25,
        mean_span: float = 2.0,
        seed: int = 0,
    ):
        super().__init__(folder, learning_rate, warmup_steps, weight_decay, betas, seed)
        if not 0 <= restated <= 1:
            raise InputError(f"model.restated: {restated}; it must be between 0 and 1.")
        if not 0 < noise_density < 1:
            raise InputError(f"model.noise_density: {noise_density}; it must be above 0 and below 1.")
        if mean_span < 1:
            raise InputError(f"model.mean_span: {mean_span}; it must be at least 1 token.")
        self.restated, self.noise_density, self.mean_span = restated, noise_density, mean_span
        self.tokenizer = t5_tokenizer()
        self.sentinels = [cast(int, self.tokenizer.convert_tokens_to_ids(f"<extra_id_{i}>")) for i in range(SENTINELS)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = transformers.T5ForConditionalGeneration(POCKET.t5_config(self.tokenizer)).train()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        generator = self.draws("spans")
        restated = torch.rand(len(batch["prompt"]), generator=generator) < self.restated
        inputs = self.tasks(batch["prompt"], batch["plain"], restated.tolist(), generator)
        with torch.random.fork_rng(devices=[]):  # dropout's draws too depend on the step alone
            torch.manual_seed(self.draws("dropout").initial_seed())
            loss = self.answer(inputs, restated).loss
        self.log("train/loss", loss, batch_size=len(restated), prog_bar=True)
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
        figures = {
            "val/loss": self.restated * output.loss + (1 - self.restated) * filled.loss,
            "val/loss_spans": filled.loss,
            "val/loss_restated": output.loss,
            "val/restated": right.all(-1).float().mean(),
        }
        self.log_dict(figures, batch_size=count, sync_dist=True)

    def answer(self, inputs: dict[str, Tensor], restated: Tensor) -> Any:
        """What the decoder says to :meth:`tasks`; of the ``restated`` captions (B,) it sees the mean state alone."""
        mask = inputs["attention_mask"]
        states = self.model.encoder(inputs["input_ids"], attention_mask=mask).last_hidden_state
        mean = mean_state(states, mask)[:, None].expand_as(states)
        seen = torch.where(restated.to(states.device)[:, None, None], mean, states)
        return self.model(encoder_outputs=(seen,), attention_mask=mask, labels=inputs["labels"])

    def tasks(
        self, prompts: Sequence[str], plain: Sequence[str], restated: Sequence[bool], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What T5 reads of B prompts and shall say: ``input_ids``, ``attention_mask`` (B, L) and ``labels`` (B, M)."""
        pairs = []
        for row, wording, whole in zip(self._ids(prompts), self._ids(plain), restated, strict=True):
            corrupted = span_corruption(row, self.sentinels, self.noise_density, self.mean_span, generator)
            pairs.append((row, wording) if whole else corrupted)
        end = [self.tokenizer.eos_token_id]
        read, said = zip(*((torch.tensor(a + end), torch.tensor(b + end)) for a, b in pairs), strict=True)
        ids = torch.nn.utils.rnn.pad_sequence(list(read), True, self.tokenizer.pad_token_id)
        labels = torch.nn.utils.rnn.pad_sequence(list(said), True, IGNORED)
        mask = (ids != self.tokenizer.pad_token_id).long()
        inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

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


def span_corruption(
    tokens: Sequence[int], sentinels: Sequence[int], noise_density: float, mean_span: float, generator: torch.Generator
) -> tuple[list[int], list[int]]:
    """Replaces spans of a text by sentinels (T5, Sec. 3.1.4): what is read, and the spans after their sentinels.

    Spans have random lengths and places; they do not touch, and may begin or end the text.

    Args:
        tokens: N >= 1 ids without the end of the sequence. sentinels: ids, one per span and one that ends the target.
        noise_density: share of tokens to replace, at least one of them. mean_span: mean length of a span.
        generator: on the CPU.
    """
    missing = min(max(1, round(len(tokens) * noise_density)), max(1, len(tokens) - 1))
    kept = len(tokens) - missing
    spans = min(max(1, round(missing / mean_span)), missing, kept + 1, len(sentinels) - 1)
    gone = _parts(missing, spans, generator)
    stay = _parts(kept + 2, spans + 1, generator)  # the outer two may be empty
    stay[0], stay[-1] = stay[0] - 1, stay[-1] - 1
    read: list[int] = []
    said: list[int] = []
    at = 0
    for sentinel, before, span in zip(sentinels, stay, gone, strict=False):
        read += [*tokens[at : at + before], sentinel]
        said += [sentinel, *tokens[at + before : at + before + span]]
        at += before + span
    return read + list(tokens[at:]), [*said, sentinels[spans]]


def _parts(total: int, count: int, generator: torch.Generator) -> list[int]:
    """``count`` lengths of at least 1 that sum to ``total``, all ways equally likely."""
    cuts = (torch.randperm(total - 1, generator=generator)[: count - 1] + 1).sort().values.tolist()
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]
