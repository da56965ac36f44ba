"""The pocket AudioMAE in training: a ViT that hears a fifth of a filter bank and a light decoder that fills in the rest.

Masked Autoencoders that Listen (arXiv 2207.06405): its pretraining on patches and, if wished, in the same steps its
fine-tuning on labels. The encoder is what the others read; the decoder is written beside it, to draw what it fills in. The
label head stays in the checkpoint.
"""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from safetensors import safe_open
from safetensors.torch import save_file
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from apa_lightning.audio import fbank
from apa_lightning.backbones.architectures import POCKET, save_audio_encoder
from apa_lightning.errors import InputError
from apa_lightning.pocket.parts.labels import LABELS, label_loss
from apa_lightning.pocket.parts.part import PocketPart
from apa_lightning.pocket.report.figures import draw_mels
from apa_lightning.utils.rng import generator_for

PICTURES = 3
DECODER = "decoder.safetensors"
"""File beside the encoder's, for :class:`Decoder`."""
_FLAT = 1e-2  # Deviation of a patch without any sound, below which normalising would only magnify rounding.


class PocketAudioMAE(PocketPart):
    """Trains the audio encoder by masked autoencoding of Kaldi filter banks.

    Args:
        mask_share: share of a clip's patches that the encoder does not see.
        visible_weight: weight of the loss on the patches that it does see, beside 1 for the masked ones. Without it a token
            need not keep its own patch's detail, and with that the pitch.
        label_weight: weight of telling the AudioSet labels of a clip from the mean of its visible tokens; 0: patches alone.
            With it, a probe for the instrument measures what was taught; pitch is never taught.
        normalised_targets: whether each patch is predicted with its own mean and deviation taken out.
        decoder_width, decoder_depth, decoder_heads: sizes of the decoder.
        **schedule: of :class:`PocketPart`.
    """

    writes = ("audio_encoder",)

    def __init__(
        self,
        mask_share: float = 0.8,
        visible_weight: float = 1.0,
        label_weight: float = 0.0,
        normalised_targets: bool = False,
        decoder_width: int = 96,
        decoder_depth: int = 1,
        decoder_heads: int = 3,
        **schedule: Any,
    ):
        super().__init__(**schedule)
        if not 0 < mask_share < 1:
            raise InputError(f"model.mask_share: {mask_share}; it must be above 0 and below 1, such as 0.8.")
        for name, weight in (("visible_weight", visible_weight), ("label_weight", label_weight)):
            if weight < 0:
                raise InputError(f"model.{name}: {weight}; it must not be negative.")
        if decoder_width % (4 * decoder_heads):
            raise InputError(
                f"model.decoder_width: {decoder_width}; it must be a multiple of 4 * decoder_heads = {4 * decoder_heads}."
            )
        self.mask_share, self.normalised_targets = mask_share, normalised_targets
        self.visible_weight, self.label_weight = visible_weight, label_weight
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.encoder: Any = POCKET.build_audio_encoder()
            with torch.no_grad():
                self.encoder.get_parameter("pos_embed")[0, 1:] = position_embedding(self.grid, self.encoder.embed_dim)
            self.decoder = Decoder(
                self.grid, self.encoder.embed_dim, self.patch**2, decoder_width, decoder_depth, decoder_heads
            )
            self.label_head = nn.Linear(self.encoder.embed_dim, len(LABELS))

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along time and frequency."""
        return self.encoder.patch_embed.grid_size

    @property
    def patch(self) -> int:
        """Frames and bins of a patch."""
        return self.encoder.patch_embed.patch_size[0]

    def banks(self, batch: dict[str, Any]) -> Tensor:
        """The batch's filter banks (B, 1, T, F)."""
        frames, bins = self.encoder.patch_embed.img_size
        return fbank(batch["waveform"], frames, bins, lengths=batch.get("num_samples"))

    def forward(self, banks: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode the first patches of each clip's random ``order`` (B, N) and predict all of them, and the labels.

        Returns:
            predicted and true values (B, N, P) of the patches, masked (B, N), whether a patch was hidden, and the logits
            (B, L) of :data:`LABELS`.
        """
        seen = order[:, : max(1, round(order.shape[1] * (1 - self.mask_share)))]
        masked = torch.ones_like(order, dtype=torch.bool).scatter(1, seen, False)
        tokens = encode_visible(self.encoder, banks, seen)
        target = patches(banks, self.patch)
        target = normalised(target) if self.normalised_targets else target
        return self.decoder(tokens, seen), target, masked, self.label_head(tokens[:, 1:].mean(dim=1))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        banks = self.banks(batch)
        predicted, target, masked, logits = self(banks, random_order(banks, self.grid, self.draws("masks")))
        hidden, visible = reconstruction_losses(predicted, target, masked)
        labels = label_loss(logits, batch["labels"])
        loss = hidden + self.visible_weight * visible + self.label_weight * labels
        self.log("train/loss", loss, prog_bar=True, batch_size=len(banks))
        figures = {"train/hidden": hidden, "train/visible": visible, "train/labels": labels}
        self.log_dict(figures, batch_size=len(banks))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        banks = self.banks(batch)
        generator = generator_for(self.seed, "validation masks", batch_idx, self.global_rank)
        predicted, target, masked, logits = self(banks, random_order(banks, self.grid, generator))
        hidden, visible = reconstruction_losses(predicted, target, masked)
        mean, _ = reconstruction_losses(target.mean(dim=(0, 1), keepdim=True).expand_as(target), target, masked)
        labels = label_loss(logits, batch["labels"])
        figures = {
            "val/loss": hidden + self.visible_weight * visible + self.label_weight * labels,
            "val/hidden": hidden,
            "val/visible": visible,
            "val/labels": labels,
            "val/unexplained": hidden / mean,
        }
        self.log_dict(figures, batch_size=len(banks), sync_dist=True)
        if batch_idx == 0 and self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._draw(banks, predicted, masked, batch["key"])

    def _draw(self, banks: Tensor, predicted: Tensor, masked: Tensor, keys: list[str]) -> None:
        """Write pictures of a few clips into the run's log folder and its TensorBoard."""
        from matplotlib.image import imread

        if self.normalised_targets:
            target = patches(banks, self.patch)
            predicted = predicted * deviation(target) + target.mean(dim=-1, keepdim=True)
        path = Path(self.trainer.log_dir or self.trainer.default_root_dir) / f"masked_{self.global_step:07d}.png"
        draw_masked(path, banks[:PICTURES], predicted[:PICTURES], masked[:PICTURES], keys)
        if isinstance(self.logger, TensorBoardLogger):
            self.logger.experiment.add_image("masked", imread(path), self.global_step, dataformats="HWC")

    def write(self, folder: Path) -> None:
        encoder = copy.deepcopy(self.encoder).cpu().half()
        save_audio_encoder(encoder, folder / "audio_encoder", POCKET)
        self.decoder.save(folder / "audio_encoder" / DECODER)


class Decoder(nn.Module):
    """From the tokens of the visible patches to the values of all patches.

    Args:
        grid: patches along time and frequency, N in all. tokens: width D of the encoder. values: P of a patch.
        width, depth, heads: of the decoder's blocks.
    """

    positions: Tensor

    def __init__(self, grid: tuple[int, int], tokens: int, values: int, width: int, depth: int, heads: int):
        super().__init__()
        self.sizes = {
            "grid": list(grid),
            "tokens": tokens,
            "values": values,
            "width": width,
            "depth": depth,
            "heads": heads,
        }
        self.project = nn.Linear(tokens, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.register_buffer("positions", position_embedding(grid, width), persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, values)

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Tokens (B, 1 + V, D), the class token first, of patches ``seen`` (B, V) -> values (B, N, P)."""
        hidden = self.project(tokens)
        places = seen[..., None].expand(-1, -1, hidden.shape[-1])
        filled = self.mask_token.expand(len(seen), len(self.positions), -1).scatter(1, places, hidden[:, 1:])
        hidden = torch.cat([hidden[:, :1], filled + self.positions], dim=1)
        return self.predict(self.norm(self.blocks(hidden)[:, 1:]))

    def save(self, path: Path) -> None:
        """Write the weights in half precision, with the sizes in the file's header."""
        weights = {name: value.detach().cpu().half().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, path, metadata={"sizes": json.dumps(self.sizes)})

    @classmethod
    def load(cls, path: Path) -> "Decoder":
        """Read what :meth:`save` wrote, in fp32."""
        with safe_open(path, "pt") as file, torch.random.fork_rng(devices=[]):
            decoder = cls(**json.loads(file.metadata()["sizes"]))
            decoder.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        return decoder.eval()


def draw_masked(path: Path, banks: Tensor, predicted: Tensor, masked: Tensor, titles: Sequence[str]) -> None:
    """A picture of filter banks (B, 1, T, F), what the encoder saw of them, and what the decoder made of that.

    Args:
        predicted: values (B, N, P) of all patches. masked: which the encoder did not see (B, N). titles: of the clips.
    """
    size = round(predicted.shape[-1] ** 0.5)
    grid, target = (banks.shape[2] // size, banks.shape[3] // size), patches(banks, size)
    shown = {
        "source": target,
        "seen": target.masked_fill(masked[..., None], float(target.min())),
        "reconstruction": torch.where(masked[..., None], predicted, target),
        "decoded": predicted,
    }
    rows: dict[str, Sequence[Tensor]] = {name: list(unpatched(values, grid).cpu()) for name, values in shown.items()}
    draw_mels(path, rows, titles[: len(banks)])


def encode_visible(encoder: Any, banks: Tensor, seen: Tensor) -> Tensor:
    """``encoder.forward_features`` of filter banks (B, 1, T, F) with all patches but ``seen`` (B, V) left out.

    Returns:
        Tokens (B, 1 + V, D), the class token first.
    """
    tokens = encoder.patch_embed(banks) + encoder.pos_embed[:, 1:]
    tokens = tokens.gather(1, seen[..., None].expand(-1, -1, tokens.shape[-1]))
    first = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(banks), -1, -1)
    return encoder.norm(encoder.blocks(encoder.norm_pre(torch.cat([first, tokens], dim=1))))


def random_order(banks: Tensor, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
    """For each clip of ``banks`` (B, ...) a random order (B, N) of its patches, drawn on the CPU."""
    return torch.rand(len(banks), grid[0] * grid[1], generator=generator).argsort(dim=1).to(banks.device)


def reconstruction_losses(predicted: Tensor, target: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error of patches (B, N, P) that were hidden, and of those that were seen; ``masked`` is (B, N)."""
    errors = F.mse_loss(predicted, target, reduction="none").mean(dim=-1)
    return errors[masked].mean(), errors[~masked].mean()


def position_embedding(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed sines and cosines of a patch's place in time and frequency, (N, width), time-major."""
    return build_sincos2d_pos_embed(list(grid), width)


def patches(banks: Tensor, size: int) -> Tensor:
    """Filter banks (B, 1, T, F) -> values (B, N, P = size * size) of their patches, time-major."""
    return banks[:, 0].unfold(1, size, size).unfold(2, size, size).flatten(3).flatten(1, 2)


def unpatched(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of :func:`patches` without the channel: values (B, N, P) -> (B, T, F)."""
    size = round(values.shape[-1] ** 0.5)
    return values.unflatten(1, grid).unflatten(3, (size, size)).transpose(2, 3).flatten(3).flatten(1, 2)


def deviation(values: Tensor) -> Tensor:
    """Deviation (B, N, 1) of each patch."""
    return (values.var(dim=-1, keepdim=True, correction=0) + _FLAT**2).sqrt()


def normalised(values: Tensor) -> Tensor:
    """Patches (B, N, P) with their own mean and deviation taken out."""
    return (values - values.mean(dim=-1, keepdim=True)) / deviation(values)
