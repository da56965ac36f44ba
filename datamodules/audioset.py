"""Training and validation data: AudioSet, or anything else in shards of the same form."""

from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader

from apa_lightning.errors import InputError
from datamodules.loading.loaders import EvaluationLoader, TrainLoader
from datamodules.loading.readers import StreamReader, loader_options
from datamodules.ranges import check_range
from datamodules.resumable import ResumableDataModule
from datamodules.shards.captions import CaptionTemplates
from datamodules.shards.decoding import ExampleDecoder
from datamodules.shards.indexed import IndexedShards
from datamodules.shards.quarantine import Quarantine
from datamodules.shards.scan import NotIndexedError
from datamodules.shards.streamed import StreamedShards
from datamodules.shards.table import SampleTable
from datamodules.shards.urls import expand_shards, is_local, shard_identity


class AudioSetDataModule(ResumableDataModule):
    """Audio clips with captions, from WebDataset shards (`<key>.flac` + `<key>.json` with `labels`).

    Batches are `key` (list of B), `waveform` (B, S) float32 in [-1, 1] with S = audio_length_in_s * sample_rate, or (B, 2, S)
    for a backbone that is stereo,
    `num_samples` without padding, `start` in seconds of the clip, `prompt`, `labels` and `metadata`, the content of the JSON
    (lists of B). With `<key>.prompt.flac`, an audio prompt other than the target, in at least one of the samples there are also
    `prompt_waveform` (B, S), cut at the same time, and `prompt_num_samples` (list of B). Shards are read by index, in one
    global order that depends on (seed, epoch) alone: local ones, and http(s) ones with an index next to them whose server
    answers range requests. If one shard cannot be read so, all are streamed (see `StreamedShards`).

    Broken samples are skipped, listed in `quarantine-*.jsonl` and, in training, replaced by others, so batches stay full.
    Under DDP every rank takes the same number of training steps, and each validation sample comes once over all ranks.

    Args:
        train_shards: `embedded` (the project's own clips), or paths, brace expressions (`a-{000..099}.tar`),
            wildcards, http(s) URLs or `pipe:` commands; one or a list.
        validation_shards: The same for validation; no shard may be in both. Null: no validation.
        batch_size: Clips per step and rank.
        num_workers: Processes per rank that read and decode; 0 decodes in the training process.
        audio_length_in_s: Length of a clip: a random window in training, the start in validation, padded with zeros;
            null: the model's window (5.12 s for the pocket, 10.24 s for AudioLDM2).
        sample_rate: Sample rate of the waveforms in Hz; null: the model's (16,000 for AudioLDM2).
        min_seconds: Shorter clips are skipped as broken.
        samples_per_epoch: Clips of all ranks in one epoch; null: all clips. Required for streamed shards.
        validation_samples: Use only so many validation clips, spread evenly over the shards; null: all.
        self_prompts: Share of the training clips with an audio prompt of their own that nevertheless are their own audio
            prompt, drawn in every epoch. They teach the adapter to keep how a recording sounds.
        seed: Seed of order, windows, captions and self-prompts.
        caption_templates: Texts with `{}` in place of the labels; null: 15 of the paper's kind.
        lowercase_labels: Write labels without their initial capital.
        prefer_captions: Use a clip's own caption if it has one.
        max_broken_share: Largest share of broken clips; beyond it the run stops.
        quarantine_dir: Folder of the report of broken clips; null: the run's log folder.
        stream: Stream http(s) shards from front to back even where they could be read by index, as runs of earlier versions
            did. A server is then asked once for a shard, instead of once for each clip.
        shuffle_buffer: Streamed shards only: number of clips among which each worker draws.
        allow_pipe: Allow `pipe:` shards, which run a command.

    Raises:
        InputError: If a setting is out of range.
    """

    def __init__(
        self,
        train_shards: str | list[str] = "embedded",
        validation_shards: str | list[str] | None = "embedded",
        batch_size: int = 8,
        num_workers: int = 2,
        audio_length_in_s: float | None = None,
        sample_rate: int | None = None,
        min_seconds: float = 1.0,
        samples_per_epoch: int | None = None,
        validation_samples: int | None = None,
        self_prompts: float = 0.0,
        seed: int = 0,
        caption_templates: list[str] | None = None,
        lowercase_labels: bool = True,
        prefer_captions: bool = True,
        max_broken_share: float = 0.05,
        quarantine_dir: Path | None = None,
        shuffle_buffer: int = 256,
        allow_pipe: bool = False,
        stream: bool = False,
    ) -> None:
        super().__init__()
        check_range("batch_size", batch_size, int, 1)
        check_range("num_workers", num_workers, int, 0, 1024)
        check_range("audio_length_in_s", audio_length_in_s, int | float | None, 0.1, 1800)
        check_range("sample_rate", sample_rate, int | None, 4000, 384_000)
        check_range("min_seconds", min_seconds, int | float, 0, 1800)
        check_range("samples_per_epoch", samples_per_epoch, int | None, 1)
        check_range("validation_samples", validation_samples, int | None, 1)
        check_range("self_prompts", self_prompts, int | float, 0, 1)
        check_range("max_broken_share", max_broken_share, int | float, 0, 1)
        check_range("shuffle_buffer", shuffle_buffer, int, 1)
        self.train_shards, self.validation_shards = train_shards, validation_shards
        self.batch_size, self.num_workers = batch_size, num_workers
        self.audio_length_in_s, self.sample_rate, self.min_seconds = audio_length_in_s, sample_rate, min_seconds
        self.samples_per_epoch, self.validation_samples, self.seed = samples_per_epoch, validation_samples, seed
        self.captions = CaptionTemplates(caption_templates, lowercase_labels, prefer_captions)
        self.self_prompts = self_prompts
        self.max_broken_share, self.quarantine_dir = max_broken_share, quarantine_dir
        self.shuffle_buffer, self.allow_pipe, self.stream = shuffle_buffer, allow_pipe, stream
        self.quarantines: dict[str, Quarantine] = {}
        """Samples that were not delivered, by split."""
        self._sources: dict[str, SampleTable | list[str]] = {}

    # --- shards ---------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Find and check all shards before any work starts.

        Raises:
            FileNotFoundError: If local shards are missing.
            InputError: If shards are empty, not tar files, mostly broken, or in both splits.
        """
        model = getattr(self.trainer, "lightning_module", None)
        if model is not None:
            model.configure_model()  # Lightning calls it after this, and the window of its backbone is needed before
        wanted: dict[str, str | list[str] | None] = {"validation": self.validation_shards}
        if stage == "fit":
            wanted = {"train": self.train_shards, **wanted}
        urls = {
            split: expand_shards(f"{split}_shards", shards, self.allow_pipe, split)
            for split, shards in wanted.items()
            if shards is not None
        }
        _refuse_shared_shards(urls)
        self.forget_place()
        folder = self._report_folder()
        for split, names in urls.items():
            self.quarantines[split] = Quarantine(split, self.max_broken_share, folder, self.rank)
            self._sources[split] = self._locate(split, names)
        _refuse_shared_clips(self._sources)

    def _locate(self, split: str, urls: list[str]) -> SampleTable | list[str]:
        try:
            if why := self._streams(urls):
                raise NotIndexedError(why)
            table = SampleTable(urls)
        except NotIndexedError as why:
            return self._streamed(split, urls, str(why))
        self.quarantines[split].located(table.faults, len(table))
        pairs = f", {table.audio_prompts} with an audio prompt of their own" if table.audio_prompts else ""
        rank_zero_info(f"{split}: {len(table)} clips in {len(urls)} shards{pairs}")
        return table

    def _streamed(self, split: str, urls: list[str], why: str) -> list[str]:
        """Shards that cannot be read by index.

        Raises:
            InputError: If they cannot be used so.
        """
        if split == "train" and self.samples_per_epoch is None:
            raise InputError(
                f"samples_per_epoch: is needed, because the number of samples in streamed shards is unknown: {why}. Give "
                "the number of clips after which an epoch ends."
            )
        rank_zero_info(f"{split}: {len(urls)} shards, streamed from front to back: {why}")
        return urls

    def _streams(self, urls: list[str]) -> str:
        """Why the shards are streamed without a look at them; empty if it depends on their indexes and servers."""
        if self.stream and not all(map(is_local, urls)):
            return "`stream` is set"
        return next((f"'{url}' is a command" for url in urls if url.startswith("pipe:")), "")

    def describe(self) -> dict[str, dict[str, int | str]]:
        """Number of shards, clips and audio prompts and a digest, by split; of streamed shards only the first is known."""
        return {
            split: {
                "shards": len(source.shards),
                "clips": len(source),
                "audio_prompts": source.audio_prompts,
                "digest": source.digest(),
            }
            if isinstance(source, SampleTable)
            else {"shards": len(source)}
            for split, source in self._sources.items()
        }

    def _report_folder(self) -> Path | None:
        if self.quarantine_dir is not None:
            return Path(self.quarantine_dir)
        folder = self.trainer.log_dir if self.trainer is not None else None
        return Path(folder) if folder else None

    def _window(self) -> tuple[float, int]:
        """Length in seconds and sample rate of the model's window."""
        return getattr(self._backbone, "window_seconds", 10.24), getattr(self._backbone, "sample_rate", 16_000)

    @property
    def _backbone(self) -> Any:
        """The model's backbone; None without a model."""
        return getattr(getattr(self.trainer, "lightning_module", None), "backbone", None)

    def _decoder(self, training: bool) -> ExampleDecoder:
        seconds, rate = self._window()
        seconds, rate = self.audio_length_in_s or seconds, self.sample_rate or rate
        self_prompts, channels = self.self_prompts if training else 0.0, getattr(self._backbone, "audio_channels", 1)
        return ExampleDecoder(
            seconds, rate, self.min_seconds, training, self.captions, self.seed, self_prompts, channels
        )

    def _indexed(self, split: str, table: SampleTable) -> IndexedShards:
        """The samples of a split by number."""
        training = split == "train"
        return IndexedShards(table, self._decoder(training), substitute=training)

    # --- loaders ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> TrainLoader:
        """Training batches of this rank."""
        source, quarantine = self._sources["train"], self.quarantines["train"]
        per_epoch = self.samples_per_epoch or len(source)
        identity: dict[str, int | str] = {"samples_per_epoch": per_epoch, "seed": self.seed}
        if isinstance(source, SampleTable):
            identity = {"samples": len(source), **identity, "digest": source.digest()}
            return self.indexed_train_loader(self._indexed("train", source), per_epoch, quarantine, identity)
        identity = {"shards": len(source), **identity}
        stream = StreamedShards(
            source, self._decoder(training=True), True, self.shuffle_buffer, self.rank, self.world_size
        )
        reader = StreamReader(stream, self.batch_size, self.num_workers)
        return self.make_train_loader(reader, per_epoch, quarantine, identity)

    def val_dataloader(self) -> EvaluationLoader | list[Any]:
        """Validation batches of this rank, the same in every epoch."""
        if self.validation_shards is None:
            return []
        source, quarantine, wanted = (
            self._sources["validation"],
            self.quarantines["validation"],
            self.validation_samples,
        )
        if isinstance(source, SampleTable):
            dataset = self._indexed("validation", source)
            return self.indexed_evaluation_loader(dataset, wanted, quarantine, "validation_samples")
        stream = StreamedShards(source, self._decoder(training=False), False, 1, self.rank, self.world_size, wanted)
        loader: DataLoader = DataLoader(stream, batch_size=self.batch_size, **loader_options(self.num_workers))
        return EvaluationLoader(loader, quarantine, None)

    def test_dataloader(self) -> EvaluationLoader | list[Any]:
        """The validation clips."""
        return self.val_dataloader()


def _refuse_shared_shards(urls: dict[str, list[str]]) -> None:
    train = {shard_identity(url): url for url in urls.get("train", [])}
    for url in urls.get("validation", []):
        if shard_identity(url) in train:
            raise InputError(f"validation_shards: '{url}' is a training shard too. Validate on other shards.")


def _refuse_shared_clips(sources: dict[str, SampleTable | list[str]]) -> None:
    train, validation = sources.get("train"), sources.get("validation")
    if not isinstance(train, SampleTable) or not isinstance(validation, SampleTable):
        return
    if same := validation.same_audio(train):
        first, second = validation.group(same[0]), train.group(same[1])
        raise InputError(
            f"validation_shards: clip '{first.key}' of '{first.shard}' is training clip '{second.key}' of "
            f"'{second.shard}'. Validate on other clips."
        )
