"""Training and validation data whose windows and prompts the frozen parts of the model have encoded once."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from apa_lightning.backbones.window_encoder import WindowEncoder
from apa_lightning.errors import InputError
from datamodules.audioset import AudioSetDataModule
from datamodules.encodings.encode import Clips, encode_missing, encode_windows
from datamodules.encodings.pieces import Origin, Piece, missing, open_piece, pieces
from datamodules.encodings.shards import EncodedShards
from datamodules.encodings.sizing import Sizes, check_room, estimate
from datamodules.ranges import check_range
from datamodules.shards.table import SampleTable
from datamodules.shards.urls import is_local

_SAME = 0.02  # relative difference of encodings; in float32 devices differ by 0.001


class EncodedDataModule(AudioSetDataModule):
    """The clips of `AudioSetDataModule` with cached encodings, for any model that has a `window_encoder`.

    Windows and prompts without encodings are encoded before training starts, on the trainer's device, by all processes that
    share the cache. Batches have no `waveform` in training; they are what the backbone's codec makes of a window, such as `mean`
    and `std` (B, C, T, ...), the moments of latents, and `grid` (B, T', F', D), the unpooled tokens of the audio, in half
    precision; `prompt_grid`, the tokens of audio prompts other than the target, if one of the clips has one; `text`, the condition
    of each prompt (list of B), if the backbone's are dataclasses of tensors; and all other columns of `AudioSetDataModule`.
    Validation batches have both.

    Order, captions and self-prompts are drawn as without a cache. The window of a clip is drawn among those that were
    encoded. Shards on a server must have an index next to them; training reads only the encodings, validation also the audio.

    Args:
        cache: Folder of the encodings; null: a folder `encoded` next to the shards, which are local then.
        windows_per_clip: Most windows of a training clip, at random places spread over it; a clip of one window's length has
            one. Validation reads the start of each clip.
        **data: Settings of `AudioSetDataModule`.

    Raises:
        InputError: If a setting is out of range.
    """

    def __init__(self, cache: Path | None = Path("runs/encoded"), windows_per_clip: int = 4, **data: Any) -> None:
        super().__init__(**data)
        check_range("windows_per_clip", windows_per_clip, int, 1)
        self.cache, self.windows_per_clip = None if cache is None else Path(cache), windows_per_clip
        self._pieces: dict[str, list[Piece]] = {}
        self._encoder: WindowEncoder | None = None

    def setup(self, stage: str) -> None:
        """Find the shards and encode what has no encodings yet.

        Raises:
            FileNotFoundError: If local shards are missing.
            InputError: If shards cannot be used or only be streamed, encodings were made with something else, the disk is too
                small for them, or the model has no `window_encoder`.
        """
        super().setup(stage)
        encoder = self._encoder = self._model_encoder()
        weights = encoder.fingerprint()
        origins = {split: self._origin(weights, split) for split in self._sources}
        clips: dict[str, Clips] = {}
        absent: dict[str, list[Piece]] = {}
        for split, table in self._sources.items():
            assert isinstance(table, SampleTable)  # others are refused
            self._pieces[split] = pieces(table, self.cache and self.cache / split)
            absent[split] = missing(self._pieces[split], origins[split])
            clips[split] = Clips(table, self._decoder(split == "train"), self.windows_per_clip)
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        for part in encoder.parts().values():
            part.to(device)
        for split in self._sources:
            if present := [piece for piece in self._pieces[split] if piece not in absent[split]]:
                _check_first(clips[split], present[0], encoder, device)
        if any(absent.values()):
            needed = sum((estimate(clips[split], absent[split], encoder, device) for split in absent), Sizes())
            folder = next(piece.path.parent for part in absent.values() for piece in part)
            rank_zero_info(f"cache: {check_room(needed, folder)}.")
        for split in self._sources:
            encode_missing(
                clips[split],
                absent[split],
                origins[split],
                encoder,
                self.quarantines[split],
                device,
                self.num_workers,
                shown=self.rank == 0,
            )
        for part in encoder.parts().values():
            part.cpu()  # the strategy moves the model
        rank_zero_info(f"cache: all clips are encoded ({self.cache or 'next to the shards'}).")

    def _locate(self, split: str, urls: list[str]) -> SampleTable | list[str]:
        if self.cache is None and (remote := next((url for url in urls if not is_local(url)), None)):
            raise InputError(
                f"cache: null means next to the shards, and '{remote}' is remote. Give a folder (data.cache)."
            )
        return super()._locate(split, urls)

    def _streamed(self, split: str, urls: list[str], why: str) -> list[str]:
        raise InputError(f"{split}_shards: shards that can only be streamed cannot be cached: {why}. Download them.")

    def _model_encoder(self) -> WindowEncoder:
        """What encodes for the model in training."""
        model: Any = getattr(self.trainer, "lightning_module", None)
        if not hasattr(model, "window_encoder"):
            raise InputError(
                f"data.class_path: EncodedDataModule needs a model that encodes windows, and {type(model).__name__} has no "
                "window_encoder. Use datamodules.AudioSetDataModule."
            )
        return model.window_encoder()

    def _window(self) -> tuple[float, int]:
        encoder = self._encoder
        return (encoder.window_seconds, encoder.sample_rate) if encoder else super()._window()

    def _origin(self, weights: str, split: str) -> Origin:
        decode, captions = self._decoder(split == "train"), self.captions
        most = self.windows_per_clip if decode.random_crop else "the start"
        windows = (most, decode.audio_length_in_s, decode.sample_rate, decode.min_seconds)
        texts = repr((captions.templates, captions.lowercase, captions.prefer_stored))
        return Origin(weights, repr(windows), hashlib.sha256(texts.encode()).hexdigest())

    def _indexed(self, split: str, table: SampleTable) -> EncodedShards:
        training = split == "train"
        return EncodedShards(table, self._decoder(training), training, self._pieces[split], audio=not training)


def _check_first(clips: Clips, piece: Piece, encoder: WindowEncoder, device: torch.device) -> None:
    """Encode one window again: settings of a model that are not weights, such as a scale of latents, decide encodings too.

    Raises:
        InputError: If it differs from what was kept.
    """
    kept = open_piece(piece.path)
    for number, clip in zip(piece.clips, kept.clips, strict=True):
        if not clip["windows"]:
            continue
        _, _, row, prompt_row = clip["windows"][0]
        columns = kept.columns(row, prompt_row)
        for name, now in encode_windows(clips[number].windows[:1], encoder, device):
            difference = float((columns[name].float() - now[0].float()).norm() / now.float().norm().clamp(min=1e-6))
            if not difference <= _SAME:
                raise InputError(
                    f"cache: {piece.path} was made with other settings of the backbone or audio encoder than this run has: "
                    f"{name} of clip '{clips.table.group(number).key}' differs by {difference:.0%}. Give another folder "
                    f"(data.cache), or remove {piece.path.parent}."
                )
        return
