"""Training the pocket CLAP: one space for 5 s of music and for prompts, by contrast of pairs (arXiv 2211.06687)."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from apa_lightning.backbones.architectures import POCKET
from apa_lightning.errors import InputError
from apa_lightning.pocket.assembly import load_part, save_half
from apa_lightning.pocket.parts.label_loss import LABELS, label_loss
from apa_lightning.pocket.parts.part import FOLDER, PocketPart, check, not_negative, share
from apa_lightning.pocket.text.prompts import ASKED, described, description, label_captions
from apa_lightning.pocket.text.tokenizers import clap_tokenizer
from apa_lightning.utils.rng import generator_for, seeded


class PocketClap(PocketPart):
    """Trains a ``ClapModel`` so that a clip and its prompt are alike, and writes it with tokenizer and feature extractor.

    All clips of a batch with the same labels or the same prompt are right answers to it.

    Args:
        folder: Folder of the pocket backbone.
        level: Lowest and highest gain in dB of a training clip: the level of a recording has no meaning.
        labelled: Share of training prompts that are replaced by the clip's labels in one of the 15 templates, which rendered
            music does not have.
        described: Share of training prompts with added words of description, which the audio does not show.
        label_weight: Weight of predicting a clip's AudioSet labels from its audio and from its prompt, next to the
            contrastive loss; 0: none. LAION's CLAP starts from an audio tower that has learned AudioSet's labels (arXiv
            2211.06687, Sec. 3.1); this one learns both at once, and without the labels it stays at chance for hundreds of
            steps, and the text tower loses what the audio hardly shows, such as whether one instrument or two are asked for.
        start: Folder whose CLAP replaces random weights; the heads that predict labels start anew.
        **schedule: Settings of :class:`PocketPart`.
    """

    writes = ("tokenizer", "text_encoder", "feature_extractor")

    def __init__(
        self,
        folder: Path = FOLDER,
        level: tuple[float, float] = (-18.0, 6.0),
        labelled: float = 0.25,
        described: float = 0.1,
        label_weight: float = 0.0,
        start: Path | None = None,
        **schedule: Any,
    ):
        super().__init__(folder, **schedule)
        self.level = check("level", level, level[0] <= level[1], "give the lowest gain first, in dB.")
        self.labelled, self.described = share("labelled", labelled), share("described", described)
        self.label_weight = not_negative("label_weight", label_weight)
        self.tokenizer, self.feature_extractor = clap_tokenizer(), feature_extractor()
        with seeded(self.seed):
            self.model = POCKET.build_clap(self.tokenizer)
            if start is not None:
                self.model = load_part(Path(start), "text_encoder")
            self.model.train()
            widths = {"audio": self.model.audio_model.config.hidden_size, "text": self.model.config.projection_dim}
            heads = {name: nn.Linear(width, len(LABELS) + 1) for name, width in widths.items()}
            self.label_heads = nn.ModuleDict(heads)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        rng = random.Random(self.draws("prompts").initial_seed())
        texts = [
            rng.choice(label_captions(labels)) if rng.random() < self.labelled else prompt
            for prompt, labels in zip(batch["prompt"], batch["labels"], strict=True)
        ]
        prompts = [described(rng, text, description(rng)) if rng.random() < self.described else text for text in texts]
        waveform = self._with_gain(self._cut(batch["waveform"], self.draws("cut")))
        with self.dropout_draws():
            by_audio, by_text, states = self._encode(waveform, prompts)
        same = same_meaning(batch["labels"], texts).to(by_audio.device)
        contrast = contrastive_loss(by_audio, by_text, same)
        labels = {name: label_loss(self.label_heads[name](state), batch["labels"]) for name, state in states.items()}
        loss = contrast + self.label_weight * sum(labels.values())
        scores = {"loss": loss, "contrast": contrast, "scale": self.model.logit_scale_a.exp()}
        scores |= {f"labels_from_{name}": value for name, value in labels.items()}
        self.log_scores("train", scores, len(prompts))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        for scale in (self.model.logit_scale_a, self.model.logit_scale_t):  # a factor of 100 at most, as CLIP
            scale.data.clamp_(max=4.6052)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        count = len(batch["prompt"])
        waveform = self._cut(batch["waveform"], generator_for(self.seed, "validation", batch_idx))
        same = same_meaning(batch["labels"], batch["prompt"]).to(self.device)
        by_audio, by_text, _ = self._encode(waveform, batch["prompt"])
        found = same[torch.arange(count, device=same.device), by_audio.argmax(-1)].float().mean()
        self.log_scores("val", {"loss": contrastive_loss(by_audio, by_text, same), "found": found}, count)
        for name in ("instrument", "genre"):
            asked = ASKED[name]
            chosen = [i for i, labels in enumerate(batch["labels"]) if len(labels) == 1 and labels[0] in asked]
            if chosen:
                answers = self._encode(waveform[chosen], list(asked.values()))[0].argmax(-1)
                true = torch.tensor([list(asked).index(batch["labels"][i][0]) for i in chosen], device=self.device)
                self.log_scores("val", {name: (answers == true).float().mean()}, len(chosen))

    def _encode(self, waveform: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Scaled cosines of B clips (B, S) and N prompts, (B, N) and (N, B), and the inputs (B, D) of the label heads.

        Of ``audio`` it is the tower's output before its projection, as in LAION's CLAP; of ``text`` the embedding itself,
        which the other parts read.
        """
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt").to(self.device)
        features = clap_features(waveform, self.feature_extractor)
        output = self.model(**tokens, input_features=features)
        with torch.autocast(self.device.type, enabled=False):  # a cosine times up to 100 needs more than bf16's 8 bits
            cosines = output.audio_embeds.float() @ output.text_embeds.float().T
            by_audio, by_text = self.model.logit_scale_a.exp() * cosines, self.model.logit_scale_t.exp() * cosines.T
        embeds = output.text_embeds.float() * output.text_embeds.shape[-1] ** 0.5  # components of unit size
        return by_audio, by_text, {"audio": output.audio_model_output.pooler_output, "text": embeds}

    def _cut(self, waveform: Tensor, generator: torch.Generator) -> Tensor:
        """A piece of (B, S) as long as CLAP reads, from one random place of the batch."""
        size = self.feature_extractor.nb_max_samples
        if (spare := waveform.shape[1] - size) < 0:
            raise InputError(
                f"data.audio_length_in_s: {waveform.shape[1] / self.feature_extractor.sampling_rate:g} s; CLAP reads "
                f"{self.feature_extractor.max_length_s} s, give clips at least as long."
            )
        start = int(torch.randint(spare + 1, (), generator=generator))
        return waveform[:, start : start + size]

    def _with_gain(self, waveform: Tensor) -> Tensor:
        low, high = self.level
        gain = low + (high - low) * torch.rand(len(waveform), 1, generator=self.draws("level"))
        return waveform * (10 ** (gain / 20)).to(waveform)

    def write(self, folder: Path) -> None:
        save_half(self.model, folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.feature_extractor.save_pretrained(folder / "feature_extractor")


def feature_extractor() -> transformers.ClapFeatureExtractor:
    """CLAP's log-mels of 5 s at 16 kHz: 251 frames of 20 ms x 64 bins.

    ``ClapAudioModel`` stretches them to the 256 that it folds into a square, and refuses more; 5.12 s would be 257. The
    class itself needs whole seconds.
    """
    return transformers.ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=16_000,
        hop_length=320,
        max_length_s=5,
        fft_window_size=1024,
        frequency_min=0,
        frequency_max=8_000,
        truncation="rand_trunc",
        padding="repeatpad",
    )


def clap_features(waveform: Tensor, extractor: transformers.ClapFeatureExtractor) -> Tensor:
    """The features of ``extractor``, batched: clips (B, S) as long as it reads -> (B, 1, T = S // hop + 1, F), in dB."""
    with torch.autocast(waveform.device.type, enabled=False):
        size = extractor.fft_window_size
        window = torch.hann_window(size, dtype=torch.float32, device=waveform.device)
        spectrum = torch.stft(
            waveform.float(), size, extractor.hop_length, window=window, center=True, return_complex=True
        )  # fmt: skip
        power = spectrum.real.square() + spectrum.imag.square()
        filters = torch.from_numpy(extractor.mel_filters_slaney).to(power)
        return (10 * (power.transpose(1, 2) @ filters).clamp(min=1e-10).log10())[:, None]


def same_meaning(labels: Sequence[Sequence[str]], prompts: Sequence[str]) -> Tensor:
    """Matrix (B, B) of the prompts that are right for a clip: its labels or its prompt are the same."""
    pairs = list(zip(map(tuple, labels), prompts, strict=True))
    return torch.tensor([[a[0] == b[0] or a[1] == b[1] for b in pairs] for a in pairs])


def contrastive_loss(by_audio: Tensor, by_text: Tensor, same: Tensor) -> Tensor:
    """Mean cross-entropy of both directions, all right answers equally likely.

    Args:
        by_audio: Logits (B, B), one row per clip.
        by_text: Logits (B, B), one row per prompt.
        same: Right answers (B, B), symmetric.
    """
    targets = same.to(by_audio)
    targets = targets / targets.sum(-1, keepdim=True)
    return torch.stack([nn.functional.cross_entropy(logits, targets) for logits in (by_audio, by_text)]).mean()
