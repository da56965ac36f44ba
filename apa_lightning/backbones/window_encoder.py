"""Windows of audio and prompts as the frozen parts encode them: one way for training, validation and cached encodings."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from apa_lightning.audio import to_mono
from apa_lightning.backbones.base import Backbone
from apa_lightning.conditioning.base import AudioConditioner
from apa_lightning.errors import InputError

#: One encoded prompt: the tensors of a text condition, without the batch axis.
TextRow = Mapping[str, Tensor]
Batch = Mapping[str, Any]
_GROUP = 16  # prompts encoded at once
KEPT_BYTES = 2**28


class WindowEncoder:
    """Encodes windows of audio and prompts by the parts of a model.

    Args:
        backbone: Encodes windows and prompts.
        audio_encoder: Encodes audio prompts into the grid of unpooled tokens.
    """

    def __init__(self, backbone: Backbone, audio_encoder: AudioConditioner):
        self.backbone, self.audio_encoder = backbone, audio_encoder

    @property
    def sample_rate(self) -> int:
        """Hz of the windows."""
        return self.backbone.sample_rate

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return self.backbone.window_seconds

    def encode(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
        """What the backbone's codec makes of windows (B, S) or (B, 2, S), by name, see :meth:`Backbone.encode`."""
        return self.backbone.encode(waveform, lengths)

    def grid(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """The unpooled tokens (B, T, F, D) of windows (B, S) or (B, 2, S).

        Raises:
            InputError: If the waveforms are not one window long.
        """
        if waveform.shape[-1] != round(self.window_seconds * self.sample_rate):
            raise InputError(
                f"data.audio_length_in_s: clips of {waveform.shape[-1] / self.sample_rate:.2f} s do not fit the backbone's "
                f"window of {self.window_seconds:.2f} s; leave the setting out to use the window."
            )
        mono = waveform if waveform.ndim == 2 else torch.stack([to_mono(one) for one in waveform])
        return self.audio_encoder(mono, self.sample_rate, lengths)

    def columns(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
        """The tensors of :meth:`encode`, and ``grid`` (B, T', F', D), of windows (B, S)."""
        return {**self.encode(waveform, lengths), "grid": self.grid(waveform, lengths)}

    def text(self, prompts: Sequence[str], rows: Sequence[TextRow] | None = None) -> Any:
        """The text condition of B prompts.

        Args:
            prompts: The prompts; an empty one means unconditional.
            rows: The prompts as :meth:`text_groups` encoded them before; an empty prompt needs none. ``None``: encode them.
        """
        if rows is None:
            return self.backbone.encode_text(prompts)
        empty = self.backbone.encode_text([""])
        parts = [_condition(row, empty) if prompt else empty for prompt, row in zip(prompts, rows, strict=True)]
        return functools.reduce(lambda batch, part: batch.cat(part), parts)

    def text_groups(self, prompts: Sequence[str]) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
        """Yield groups of prompts with the tensors of their conditions by name, each with the group's prompts as first axis.

        There is no group where the backbone's conditions are not dataclasses of tensors.
        """
        ordered = sorted(prompts, key=len)  # similar lengths need little padding
        for start in range(0, len(ordered), _GROUP):
            group = ordered[start : start + _GROUP]
            columns = _columns(self.backbone.encode_text(group), len(group))
            if columns is None:
                return
            yield group, columns

    # --- batches of the data modules: sound, or what was encoded before -------------------------------------------------

    def text_of(self, batch: Batch, prompts: Sequence[str]) -> Any:
        """The text condition of a batch, with the places of its windows. A clip is taken to end where its window does.

        Args:
            batch: Of a data module.
            prompts: Its prompts, the dropped ones empty.
        """
        text = self.text(prompts, batch.get("text"))
        if "num_samples" not in batch:
            return text
        starts = batch.get("start", [0.0] * len(prompts))
        ends = zip(starts, batch["num_samples"], strict=True)
        totals = [float(start) + length / self.sample_rate for start, length in ends]
        return self.backbone.placed(text, list(zip(map(float, starts), totals, strict=True)))

    def grid_of(self, batch: Batch) -> Tensor:
        """The unpooled tokens (B, T, F, D) of the audio prompts of a batch: the clips themselves where there are no others."""
        of = "prompt_" if {"prompt_grid", "prompt_waveform"} & batch.keys() else ""
        if f"{of}grid" in batch:
            return batch[f"{of}grid"].float()
        return self.grid(batch[f"{of}waveform"], batch.get(f"{of}num_samples"))

    def target_of(self, batch: Batch, draw: torch.Generator) -> Tensor:
        """What the backbone is to generate: latents (B, C, T, ...), a sample of the clips' posterior, or codes (B, K, T)."""
        encoding = {name: batch[name] for name in self.backbone.encoding_names if name in batch}
        if not encoding:
            encoding = self.encode(batch["waveform"], batch.get("num_samples"))
        return self.backbone.sampled(encoding, draw)

    # --- what it depends on -----------------------------------------------------------------------------------------------

    def parts(self) -> dict[str, nn.Module]:
        """The modules that encode, by name."""
        return {**self.backbone.encoders(), "audio_encoder": self.audio_encoder}

    def fingerprint(self) -> str:
        """SHA-256 of the weights that encode, and of the audio encoder's conventions."""
        digest = hashlib.sha256(repr(sorted(self.audio_encoder.conventions().items())).encode())
        for part, module in self.parts().items():
            for name, values in sorted(module.state_dict().items()):
                digest.update(f"{part}.{name} {values.dtype} {tuple(values.shape)}".encode())
                digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


class KeepingEncoder(WindowEncoder):
    """The same, for windows that come again, as those of validation: it keeps what it has encoded, up to :data:`KEPT_BYTES`."""

    def __init__(self, backbone: Backbone, audio_encoder: AudioConditioner):
        super().__init__(backbone, audio_encoder)
        self._kept: dict[tuple, dict[str, Tensor]] = {}
        self._free = KEPT_BYTES

    def encode(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
        """See :meth:`WindowEncoder.encode`."""
        return self._keep("codec", super().encode, waveform, lengths)

    def grid(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """See :meth:`WindowEncoder.grid`."""
        encode = super().grid
        return self._keep("grid", lambda *inputs: {"grid": encode(*inputs)}, waveform, lengths)["grid"]

    def _keep(
        self, name: str, encode: Callable[..., dict[str, Tensor]], waveform: Tensor, lengths: Sequence[int] | None
    ) -> dict[str, Tensor]:
        samples = waveform.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        key = (
            name,
            hashlib.sha256(samples).digest(),
            tuple(waveform.shape),
            None if lengths is None else tuple(lengths),
        )
        if key in self._kept:
            return self._kept[key]
        made = encode(waveform, lengths)
        size = sum(one.nbytes for one in made.values())
        if size <= self._free:
            self._free -= size
            self._kept[key] = made
        return made


def _columns(condition: Any, size: int) -> dict[str, Tensor] | None:
    """The tensors of a text condition of ``size`` prompts by name; ``None`` if it has another form."""
    if not dataclasses.is_dataclass(condition):
        return None
    columns = {field.name: getattr(condition, field.name) for field in dataclasses.fields(condition)}
    batched = all(isinstance(c, Tensor) and c.ndim and len(c) == size for c in columns.values())
    return columns if batched else None


def _condition(row: TextRow, like: Any) -> Any:
    """A text condition of one prompt, of the class, types and device of ``like``."""
    return type(like)(**{name: values[None].to(getattr(like, name)) for name, values in row.items()})
