"""Captions without audio, to train a text encoder: the label templates and captions as musicians write them."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from apa_lightning.conditioning.caption_templates import TEMPLATES
from apa_lightning.pocket.text import prompts
from apa_lightning.utils.lightning_compat import batches_started
from datamodules.ranges import check_range

Pair = tuple[str, str]


class PromptDataModule(LightningDataModule):
    """Batches of `prompt` and `plain` (lists of B texts), drawn from (seed, step) alone, without end.

    `plain` has the meaning of the prompt, in one wording for each meaning. A third of the prompts are labels in one of the
    15 templates; the others are captions of solos, genres and duets as musicians write them. One caption in ten
    (`prompts.held_out`) is never trained on; validation reads these, each once.

    Args:
        batch_size: Texts per step and rank.
        described: Share of training texts with words of description, capitals or full stops added.
        seed: Seed of the draws.

    Raises:
        InputError: If a setting is out of range.
    """

    def __init__(self, batch_size: int = 64, described: float = 0.25, seed: int = 0) -> None:
        super().__init__()
        check_range("batch_size", batch_size, int, 1)
        check_range("described", described, int | float, 0, 1)
        self.batch_size, self.described, self.seed = batch_size, described, seed

    def train_dataloader(self) -> "_Drawn":
        """Training batches of this rank, from the trainer's step on."""
        return _Drawn(self)

    def val_dataloader(self) -> DataLoader:
        """The held-out captions in a fixed order, so that batches hold texts of all kinds."""
        return DataLoader(held_out_captions(), self.batch_size, collate_fn=_batch)  # type: ignore[arg-type]

    def draw(self, *key: int) -> Pair:
        """Draw the prompt and plain wording of one place in training."""
        rng = random.Random("/".join(map(str, (self.seed, *key))))
        while prompts.held_out((pair := _drawn(rng))[0]):
            pass
        if rng.random() >= self.described:
            return pair
        words = prompts.description(rng)
        return prompts.described(rng, pair[0], words), ", ".join([pair[1], *words])


class _Drawn:
    """Training batches from the trainer's step on, so that a resumed run continues with the same texts."""

    def __init__(self, data: PromptDataModule) -> None:
        self._data = data

    def __iter__(self) -> Iterator[dict[str, Any]]:
        data, trainer = self._data, self._data.trainer
        step = batches_started(trainer) if trainer else 0
        rank = trainer.global_rank if trainer else 0
        while True:
            yield _batch([data.draw(rank, step, i) for i in range(data.batch_size)])
            step += 1


def held_out_captions() -> list[Pair]:
    """Every caption that is never trained on, with its plain wording, in a fixed random order."""
    pairs = {pair for meaning in prompts.MEANINGS for pair in meaning.plain_captions()}
    chosen = sorted(pair for pair in pairs if prompts.held_out(pair[0]))
    random.Random(0).shuffle(chosen)
    return chosen


def _drawn(rng: random.Random) -> Pair:
    if rng.random() < 0.01:
        return prompts.NEGATIVE_PROMPT, prompts.NEGATIVE_PROMPT
    names = rng.sample(list(prompts.INSTRUMENTS), 2)
    genre = prompts.Meaning(genre=rng.choice(list(prompts.GENRES)))
    rows = rng.choice([prompts.Meaning(names[0]), genre, prompts.Meaning(*names)]).plain_captions()
    wordings, templates = rows[: -len(TEMPLATES)], rows[-len(TEMPLATES) :]
    return rng.choice([wordings[0], rng.choice(wordings[1:]), rng.choice(templates)])


def _batch(pairs: Sequence[Pair]) -> dict[str, Any]:
    return {"prompt": [prompt for prompt, _ in pairs], "plain": [plain for _, plain in pairs]}
