"""Training the pocket AudioMAE: a ViT that encodes a fifth of a filter bank and a light decoder that predicts the rest.

Masked Autoencoders that Listen (arXiv 2207.06405): its pretraining on patches and, if wished, in the same steps its
fine-tuning on labels, and on the notes of melodies. Other parts read the encoder; the decoder is written next to it, to draw
its predictions. The heads stay in the checkpoint.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F

from apa_lightning.audio import fbank
from apa_lightning.backbones.architectures import POCKET, save_audio_encoder
from apa_lightning.conditioning.audio_mae import AudioMAE
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.note_loss import NoteHead, sounding
from apa_lightning.pocket.parts.label_loss import LABELS, label_loss
from apa_lightning.pocket.parts.part import FOLDER, PocketPart, check, not_negative
from apa_lightning.pocket.patch_decoder import DECODER, PatchDecoder, encode_visible, patches, position_embedding
from apa_lightning.pocket.report.pictures import draw_masked
from apa_lightning.utils.rng import generator_for, seeded

PICTURES = 3


class PocketAudioMAE(PocketPart):
    """Trains the audio encoder by masked autoencoding of Kaldi filter banks.

    Args:
        folder: Folder of the pocket backbone.
        mask_share: Share of a clip's patches that the encoder does not see.
        visible_weight: Weight of the loss on the patches that it does see, next to 1 for the masked ones. Without it a token
            need not keep the detail of its own patch, and with that the pitch.
        label_weight: Weight of predicting the AudioSet labels of a clip from the mean of its visible tokens; 0: patches
            alone. With it, a probe for the instrument measures what was taught.
        note_weight: Weight of predicting the pitch classes of a melody, column by column, from the tokens of its audio prompt
            (or, without one, of the clip, if it is a melody alone) pooled by each omega; 0: pitch is not taught.
        level: Lowest and highest gain in dB of what the notes are predicted from.
        start: Folder whose ``audio_encoder`` replaces random weights.
        decoder_width: Width of the decoder's blocks.
        decoder_depth: Number of the decoder's blocks.
        decoder_heads: Attention heads of the decoder's blocks.
        **schedule: Settings of :class:`PocketPart`.
    """

    writes = ("audio_encoder",)

    def __init__(
        self,
        folder: Path = FOLDER,
        mask_share: float = 0.8,
        visible_weight: float = 1.0,
        label_weight: float = 0.0,
        note_weight: float = 0.0,
        level: tuple[float, float] = (-12.0, 6.0),
        decoder_width: int = 96,
        decoder_depth: int = 1,
        decoder_heads: int = 3,
        start: Path | None = None,
        **schedule: Any,
    ):
        super().__init__(folder, **schedule)
        rule = "it must be above 0 and below 1, such as 0.8."
        self.mask_share = check("mask_share", mask_share, 0 < mask_share < 1, rule)
        self.visible_weight = not_negative("visible_weight", visible_weight)
        self.label_weight = not_negative("label_weight", label_weight)
        self.note_weight = not_negative("note_weight", note_weight)
        self.level = check("level", level, level[0] <= level[1], "give the lowest gain first, in dB.")
        least = 4 * decoder_heads
        rule = f"it must be a multiple of 4 * decoder_heads = {least}."
        check("decoder_width", decoder_width, decoder_width % least == 0, rule)
        with seeded(self.seed):
            self.encoder: Any = POCKET.build_audio_encoder()
            with torch.no_grad():
                self.encoder.get_parameter("pos_embed")[0, 1:] = position_embedding(self.grid, self.encoder.embed_dim)
            sizes = (decoder_width, decoder_depth, decoder_heads)
            self.decoder = PatchDecoder(self.grid, self.encoder.embed_dim, self.patch**2, *sizes)
            self.label_head = nn.Linear(self.encoder.embed_dim, len(LABELS))
            if self.note_weight:
                self.note_head = NoteHead(self.encoder.embed_dim)
        if start is not None:
            self._load(Path(start) / "audio_encoder")

    def _load(self, folder: Path) -> None:
        """Take the weights that were written before."""
        require(folder.parent, ("audio_encoder",))
        self.encoder.load_state_dict(AudioMAE.from_pretrained(folder).encoder.state_dict())
        if (folder / DECODER).is_file():
            self.decoder = PatchDecoder.load(folder / DECODER).train()

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along time and frequency."""
        return self.encoder.patch_embed.grid_size

    @property
    def patch(self) -> int:
        """Frames and bins of a patch."""
        return self.encoder.patch_embed.patch_size[0]

    def banks(self, batch: dict[str, Any]) -> Tensor:
        """Filter banks (B, 1, T, F) of a batch."""
        frames, bins = self.encoder.patch_embed.img_size
        return fbank(batch["waveform"], frames, bins, lengths=batch.get("num_samples"))

    def forward(self, banks: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode the first patches of each clip's random ``order`` (B, N) and predict all of them, and the labels.

        Returns:
            Predicted and true values (B, N, P) of the patches, masked (B, N), whether a patch was hidden, and the logits
            (B, L) of :data:`LABELS`.
        """
        seen, masked = masked_patches(order, self.mask_share)
        tokens = encode_visible(self.encoder, banks, seen)
        labels = self.label_head(tokens[:, 1:].mean(dim=1))
        return self.decoder(tokens, seen), patches(banks, self.patch), masked, labels

    def _losses(self, outputs: tuple[Tensor, Tensor, Tensor, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses of the outputs of :meth:`forward`; ``loss`` is their weighted sum."""
        hidden, visible = reconstruction_losses(*outputs[:3])
        labels = label_loss(outputs[3], batch["labels"])
        loss = hidden + self.visible_weight * visible + self.label_weight * labels
        return {"loss": loss, "hidden": hidden, "visible": visible, "labels": labels}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        banks = self.banks(batch)
        losses = self._losses(self(banks, random_order(banks, self.grid, self.draws("masks"))), batch)
        low, high = self.level
        gain = low + (high - low) * torch.rand(len(banks), 1, generator=self.draws("level"))
        self._add_notes(losses, batch, 10 ** (gain / 20))
        self.log_scores("train", losses, len(banks))
        return losses["loss"]

    def _add_notes(self, losses: dict[str, Tensor], batch: dict[str, Any], gain: Tensor | float = 1.0) -> None:
        """Add the loss of the notes of all melodies in a batch that are played alone."""
        rows = [i for i, fields in enumerate(batch["metadata"]) if plays_alone(batch, i, fields)]
        if not self.note_weight or not rows:
            return
        waveform = batch.get("prompt_waveform", batch["waveform"]) * gain
        lengths = batch.get("prompt_num_samples", batch["num_samples"])
        frames, bins = self.encoder.patch_embed.img_size
        banks = fbank(waveform[rows], frames, bins, lengths=[lengths[i] for i in rows])
        tokens = self.encoder.forward_features(banks)[:, self.encoder.num_prefix_tokens :]
        starts = batch.get("start", [0.0] * len(waveform))
        notes = [sounding(batch["metadata"][i]["notes"], starts[i], frames * 0.01, self.grid[0]) for i in rows]
        target = torch.stack(notes)
        losses["notes"] = self.note_head.loss(tokens.unflatten(1, self.grid), target.to(tokens))
        losses["loss"] = losses["loss"] + self.note_weight * losses["notes"]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        banks = self.banks(batch)
        generator = generator_for(self.seed, "validation masks", batch_idx, self.global_rank)
        outputs = self(banks, random_order(banks, self.grid, generator))
        predicted, target, masked, _ = outputs
        mean, _ = reconstruction_losses(target.mean(dim=(0, 1), keepdim=True).expand_as(target), target, masked)
        losses = self._losses(outputs, batch)
        losses["unexplained"] = losses["hidden"] / mean
        self._add_notes(losses, batch)
        self.log_scores("val", losses, len(banks))
        if batch_idx == 0 and self.writing:
            self._draw(banks, predicted, masked, batch["key"])

    def _draw(self, banks: Tensor, predicted: Tensor, masked: Tensor, keys: list[str]) -> None:
        """Write pictures of a few clips into the run's log folder and its TensorBoard."""
        from matplotlib.image import imread

        path = Path(self.trainer.log_dir or self.trainer.default_root_dir) / f"masked_{self.global_step:07d}.png"
        draw_masked(path, banks[:PICTURES], predicted[:PICTURES], masked[:PICTURES], keys)
        if isinstance(self.logger, TensorBoardLogger):
            self.logger.experiment.add_image("masked", imread(path), self.global_step, dataformats="HWC")

    def write(self, folder: Path) -> None:
        encoder = copy.deepcopy(self.encoder).cpu().half()
        save_audio_encoder(encoder, folder / "audio_encoder", POCKET.audio_encoder_sizes())
        self.decoder.save(folder / "audio_encoder" / DECODER)


def plays_alone(batch: dict[str, Any], row: int, fields: dict[str, Any]) -> bool:
    """Whether the notes in a clip's metadata are all that its audio prompt plays: the clip itself, or another recording."""
    if "notes" not in fields or fields.get("texture") == "melody":
        return "notes" in fields
    return "prompt_waveform" in batch and not torch.equal(batch["prompt_waveform"][row], batch["waveform"][row])


def random_order(banks: Tensor, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
    """For each clip of ``banks`` (B, ...) a random order (B, N) of its patches, drawn on the CPU."""
    return torch.rand(len(banks), grid[0] * grid[1], generator=generator).argsort(dim=1).to(banks.device)


def masked_patches(order: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Split the patches of each ``order`` (B, N): the seen ones (B, V), and whether a patch is hidden (B, N)."""
    seen = order[:, : max(1, round(order.shape[1] * (1 - share)))]
    return seen, torch.ones_like(order, dtype=torch.bool).scatter(1, seen, False)


def reconstruction_losses(predicted: Tensor, target: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error of patches (B, N, P) that were hidden, and of those that were seen; ``masked`` is (B, N)."""
    errors = F.mse_loss(predicted, target, reduction="none").mean(dim=-1)
    return errors[masked].mean(), errors[~masked].mean()
