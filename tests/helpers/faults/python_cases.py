"""BAD_INPUTS from Python: what is called, and the words of the typed error."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from bad_inputs.audio import AUDIO, audio
from bad_inputs.edits import LINES
from bad_inputs.room import Room
from bad_inputs.weights import NO_WEIGHTS, WEIGHTS, truncated
from fit_tools import WINDOW
from random_folders import tiny_backbone, tiny_parts
from shard_tools import tone, write_shards

from apa_lightning import AudioEditor, AudioLDM2Backbone, AudioMAE, EditRequest, EditResult
from apa_lightning.backbones.audioldm2 import PARTS
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.metrics.clap_embedder import ClapEmbedder
from datamodules.audioset import AudioSetDataModule
from datamodules.edits import EditsDataModule


@dataclass(frozen=True)
class Bad:
    """A call that must raise an ``InputError`` or ``FileNotFoundError`` with these words: the field or file, and the way out."""

    number: int
    name: str
    words: tuple[str, ...]
    call: Callable[[Room, AudioEditor], object]

    def __str__(self) -> str:
        return f"{self.number}-{self.name}"


def bad(number: int, name: str, words: str, call: Callable[[Room, AudioEditor], object]) -> Bad:
    return Bad(number, name, tuple(words.split("|")), call)


# --- 1 to 9: recordings ---------------------------------------------------------------------------------------------------

SECOND = torch.from_numpy(tone(1.0)).float()


def edit_file(name: str) -> Callable[[Room, AudioEditor], object]:
    def call(room: Room, editor: AudioEditor) -> object:
        content, suffix = audio(name, room)
        return editor.edit(room.write(f"culprit.{suffix}", content), prompt="x", progress=False)

    return call


def edit_array(*recording: object) -> Callable[[Room, AudioEditor], object]:
    return lambda room, editor: editor.edit(tuple(recording), prompt="x", progress=False)  # type: ignore[call-overload]


def with_value(value: float) -> torch.Tensor:
    samples = SECOND.clone()
    samples[100] = value
    return samples


RECORDINGS = [
    *(bad(number, name, f"culprit|{words}".strip("|"), edit_file(name)) for name, (number, words) in AUDIO.items()),
    bad(1, "missing_file", "gone.wav|no such audio file", lambda r, e: e.edit(r.path / "gone.wav", prompt="x")),
    bad(1, "a_folder", "is a folder", lambda r, e: e.edit(r.path, prompt="x")),
    bad(1, "none", "audio: is a NoneType|give a file", lambda r, e: e.edit(None, prompt="x")),
    bad(1, "a_number", "audio: is a int|give a file", lambda r, e: e.edit(5, prompt="x")),
    bad(1, "bytes", "audio", lambda r, e: e.edit(b"RIFF", prompt="x")),
    bad(1, "tensor_without_rate", "audio|sample_rate", lambda r, e: e.edit(SECOND, prompt="x")),
    bad(1, "tuple_of_three", "audio|sample_rate", edit_array(SECOND, 16_000, 1)),
    bad(1, "tuple_of_text", "audio", edit_array("a.wav", 16_000)),
    bad(1, "list_of_paths", "EditRequest", lambda r, e: e.edit(["a.wav", "b.wav"], prompt="x")),
    bad(5, "nan_array", "audio: contains NaN", edit_array(with_value(float("nan")), 16_000)),
    bad(5, "inf_array", "infinite", edit_array(with_value(float("inf")), 16_000)),
    bad(6, "empty_array", "audio: lasts 0.000 s", edit_array(torch.zeros(0), 16_000)),
    bad(6, "no_channels_array", "audio: has shape (0, 16000)", edit_array(torch.zeros(0, 16_000), 16_000)),
    bad(6, "rate_0_array", "sample rate is 0", edit_array(SECOND, 0)),
    bad(6, "rate_of_text", "sample rate is '16000'", edit_array(SECOND, "16000")),
    bad(6, "rate_none", "sample rate is None", edit_array(SECOND, None)),
    bad(6, "rate_nan", "sample rate is nan", edit_array(SECOND, float("nan"))),
    bad(7, "64_channels_array", "shape (64, 16000)", edit_array(torch.ones(64, 16_000), 16_000)),
    bad(7, "4_GHz_array", "sample rate is 4000000000", edit_array(SECOND, 4_000_000_000)),
    bad(7, "three_dimensions", "shape (1, 1, 16000)", edit_array(SECOND[None, None], 16_000)),
    bad(8, "silent_array", "digital silence", edit_array(torch.zeros(16_000), 16_000)),
    bad(9, "short_array", "at least 0.25 s", edit_array(SECOND[:800], 16_000)),
    bad(
        9,
        "long_array",
        "the limit for one edit is 1800 s",
        edit_array(torch.ones(4_000).expand(8_000, -1).flatten(), 4_000),
    ),
]


# --- 11 to 18: shards and manifests -----------------------------------------------------------------------------------------


def data(**settings: Any) -> Callable[[Room, AudioEditor], object]:
    """Build the data module and find its shards; a callable setting is given the room."""

    def call(room: Room, editor: AudioEditor) -> object:
        given = {name: value(room) if callable(value) else value for name, value in settings.items()}
        module = AudioSetDataModule(**{"validation_shards": None, "train_shards": "embedded", **given})
        module.setup("fit")
        return module.train_dataloader()

    return call


def shards(count: int = 4) -> Callable[[Room], str]:
    return lambda room: str(write_shards(room.path / "shards", count, count)[0])


def manifest(lines: list) -> Callable[[Room, AudioEditor], object]:
    return lambda room, editor: EditsDataModule(manifest=str(room.manifest(*lines)), output=str(room.path / "edits"))


def edits(**settings: Any) -> Callable[[Room, AudioEditor], object]:
    def call(room: Room, editor: AudioEditor) -> object:
        room.recording("in/a.wav")
        folder = {"folder": str(room.path / "in"), "prompt": "x", "output": str(room.path / "edits")}
        return EditsDataModule(**{**folder, **settings})

    return call


DATA = [
    bad(11, "missing_shard", "train_shards|no such shard", data(train_shards="gone.tar")),
    bad(11, "no_shard", "train_shards: names no shard", data(train_shards=[])),
    bad(11, "none_shard", "train_shards: names no shard", data(train_shards=[None])),
    bad(11, "empty_shard", "culprit.tar|is empty", data(train_shards=lambda r: str(r.write("culprit.tar", b"")))),
    bad(11, "random_shard", "culprit.tar|not an uncompressed tar",
        data(train_shards=lambda r: str(r.write("culprit.tar", bytes(range(1, 256)) * 20)))),
    bad(11, "no_match", "train_shards|no shard matches", data(train_shards="gone-*.tar")),
    bad(11, "braces", "cannot be expanded", data(train_shards="{a.tar")),
    bad(11, "shared", "is a training shard too", data(train_shards=shards(), validation_shards=lambda r: str(r.path / "shards/train-000000.tar"))),
    bad(12, "no_index", "is not an index of", data(train_shards=lambda r: (shards()(r), r.write("shards/train-000000.index.json", "{"))[0])),
    bad(16, "pipe", "allow_pipe", data(train_shards="pipe:touch canary")),
    bad(16, "s3", "pipe:aws s3 cp", data(train_shards="s3://bucket/a.tar")),
    bad(17, "stream_without_length", "samples_per_epoch: is needed", data(train_shards="http://127.0.0.1:9/a.tar", stream=True)),
    *(bad(18, f"manifest_{name}", words, manifest(lines)) for name, (words, lines) in LINES.items()),
    bad(18, "manifest_gone", "gone.csv does not exist", lambda r, e: EditsDataModule(manifest="gone.csv")),
    bad(18, "manifest_and_folder", "Choose one", lambda r, e: EditsDataModule(manifest="a.csv", folder="a", prompt="x")),
    bad(18, "nothing_to_edit", "Nothing to edit", lambda r, e: EditsDataModule()),
    bad(18, "folder_gone", "gone", edits(folder="gone")),
    bad(18, "folder_without_audio", "folder", lambda r, e: EditsDataModule(folder=str(r.path), prompt="x", output=str(r.path / "o"))),
]  # fmt: skip


# --- 19 and 20: requests ------------------------------------------------------------------------------------------------------


def request(**knobs: Any) -> Callable[[Room, AudioEditor], object]:
    return lambda room, editor: EditRequest(**{"audio": "a.wav", "prompt": "x", **knobs})


def edit(**knobs: Any) -> Callable[[Room, AudioEditor], object]:
    more = {name: knobs.pop(name) for name in ("batch_size",) if name in knobs}
    return lambda room, editor: editor.edit(
        (SECOND, 16_000), progress=False, **{"prompt": "x", "num_inference_steps": 1, **knobs, **more}
    )


KNOBS: dict[str, tuple[int, str, list[object]]] = {
    "prompt": (19, "prompt: {}", [None, 5, ["a"], b"a"]),
    "negative_prompt": (19, "negative_prompt: {}", [5, ["a"]]),
    "time_pooling": (20, "time_pooling: {}|1, 2, 4, 8", [0, -1, "2", True, float("nan"), [2]]),
    "freq_pooling": (20, "freq_pooling: {}|1, 2, 4, 8", [0, "2", False]),
    "ap_scale": (20, "ap_scale: {}", [float("nan"), float("inf"), "0.5", True]),
    "guidance_scale": (20, "guidance_scale: {}|0 or more", [-1, float("nan"), "7", True]),
    "num_inference_steps": (20, "num_inference_steps: {}|1 to 1000", [0, -1, 1001, 2.5, "50"]),
    "strength": (20, "strength: {}|above 0", [0, -0.5, 1.1, float("nan"), None, "1"]),
    "seed": (20, "seed: {}|whole number", [1.5, None, "0", True]),
    "sample_rate": (20, "sample_rate: {}|4000 to 384000", [0, -1, 16_000.5, "16000", 4_000_000_000]),
    "region": (20, "region: {}|start", [(1,), (1, 2, 3), 5, "ab", ("0", "1"), (float("nan"), 1), {"a": 1}]),
    "scheduler": (20, "scheduler: {}", [5, True]),
    "match_level": (20, "match_level: {}", [None, "yes", 1]),
    "id": (20, "id: {}", [5, b"a"]),
}


REQUESTS = [
    *(
        bad(number, f"{knob}_{value!r}", words.replace("{}", repr(value)), request(**{knob: value}))
        for knob, (number, words, values) in KNOBS.items()
        for value in values
    ),
    bad(19, "text_of_the_backbone", "prompt: 5 is not text", lambda r, e: e.backbone.encode_text(["a", 5])),
    bad(20, "region_end_first", "region: (4, 2)|after the start", request(region=(4, 2))),
    bad(20, "region_negative", "region: (-1, 2)|at 0 or later", request(region=(-1, 2))),
    bad(20, "region_outside", "region: 0.5 to 7 s lies outside", edit(region=(0.5, 7))),
    bad(20, "unknown_scheduler", "scheduler: 'Magic'|choose one of", edit(scheduler="Magic")),
    bad(20, "steps_of_a_scheduler", "num_inference_steps: DDIMScheduler cannot make 1000", edit(num_inference_steps=1000)),
    bad(20, "pooling_3", "time_pooling: 3; choose one of 1, 2, 4, 8", edit(time_pooling=3)),
    bad(20, "freq_pooling_5", "freq_pooling: 5; choose one of 1, 2, 4, 8", edit(freq_pooling=5)),
    bad(20, "two_scales", "ap_scale: 2 scales for 1 adapters", edit(ap_scale=[0.5, 0.5])),
    bad(20, "unknown_block", "ap_scale: no adapted layer in 'nowhere'", edit(ap_scale={"nowhere": 1.0})),
    bad(20, "block_of_text", "ap_scale: {'up': 'a'}|finite number", edit(ap_scale={"up": "a"})),
    bad(20, "batch_0", "batch_size: 0", edit(batch_size=0)),
    bad(20, "batch_of_text", "batch_size: 'many'", edit(batch_size="many")),
    bad(20, "not_requests", "list of EditRequest", lambda r, e: e.edit([EditRequest(audio="a", prompt="x"), "b"])),
    bad(20, "knobs_beside_requests", "list of EditRequest", lambda r, e: e.edit([EditRequest(audio="a", prompt="x")], seed=1)),
    bad(20, "knobs_beside_a_request", "EditRequest|seed", lambda r, e: e.edit(EditRequest(audio="a", prompt="x"), seed=1)),
    bad(20, "pooling_larger_than_the_grid", "time_pooling: 8; choose one of 1, 2: the audio", lambda r, e: pool_tokens(torch.zeros(1, 2, 2, 4), 8)),
]  # fmt: skip


# --- 21 and 22: settings and weights ------------------------------------------------------------------------------------------


def load(**settings: Any) -> Callable[[Room, AudioEditor], object]:
    """AudioEditor.from_pretrained of tiny parts; a callable setting is given the room."""

    def call(room: Room, editor: AudioEditor) -> object:
        given = {name: value(room) if callable(value) else value for name, value in settings.items()}
        return AudioEditor.from_pretrained(**{**tiny_parts(WINDOW), **given})

    return call


def written(name: str, content: Callable[[Room], bytes]) -> Callable[[Room], Path]:
    return lambda room: room.write(name, content(room))


def newer_format(room: Room) -> Path:
    path = room.adapter()
    weights = safetensors.torch.load_file(path)
    safetensors.torch.save_file(weights, path, {"format": "apa_lightning.adapter", "format_version": "99"})
    return path


def odd_header(**metadata: str) -> Callable[[Room], Path]:
    """An adapter file whose header was edited by hand."""

    def make(room: Room) -> Path:
        path = room.adapter()
        header = {"format": "apa_lightning.adapter", "format_version": "1", **metadata}
        safetensors.torch.save_file(safetensors.torch.load_file(path), path, header)
        return path

    return make


def part(name: str, change: Callable[[Path], object]) -> Callable[[Room], Path]:
    """A backbone in which a file of one part was changed."""
    import shutil

    def make(room: Room) -> Path:
        folder = shutil.copytree(tiny_backbone(WINDOW), room.path / "culprit")
        change(folder / name)
        return folder

    return make


def without_a_layer(path: Path) -> None:
    weights = safetensors.torch.load_file(path)
    del weights[sorted(weights)[len(weights) // 2]]
    safetensors.torch.save_file(weights, path, {"format": "pt"})


def weights_of(name: str) -> str:
    """The path of a part's weights in a backbone's folder."""
    return next((tiny_backbone(WINDOW) / name).glob("*.safetensors")).relative_to(tiny_backbone(WINDOW)).as_posix()


def clap_without_a_layer(room: Room, editor: AudioEditor) -> object:
    return ClapEmbedder.from_pretrained(part(weights_of("text_encoder"), without_a_layer)(room))


def encoder_config(text: str) -> Callable[[Room], Path]:
    return lambda room: room.write("encoder/config.json", text).parent


def changed_json(**values: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def save(name: str, waveform: torch.Tensor = SECOND) -> Callable[[Room, AudioEditor], object]:
    def call(room: Room, editor: AudioEditor) -> object:
        room.write("file", "precious")
        (room.path / "folder.wav").mkdir()
        return EditResult(EditRequest(audio="a", prompt="x"), waveform, 16_000).save(room.path / name)

    return call


SETTINGS: dict[str, list[object]] = {
    "batch_size": [0, -1, "many", None, 1.5],
    "num_workers": [-1, "many", None],
    "audio_length_in_s": [0, float("nan"), "long"],
    "sample_rate": [0, "16000"],
    "min_seconds": [-1, None],
    "samples_per_epoch": [0, "all"],
    "max_broken_share": [1.5, float("nan"), None, "half"],
    "shuffle_buffer": [0, None],
}
FILES = [
    *(
        bad(21, f"{name}_{value!r}", f"{name}|{value}", data(**{name: value}))
        for name, values in SETTINGS.items()
        for value in values
    ),
    bad(21, "caption_templates", "caption_templates", data(caption_templates=["no place"])),
    bad(21, "vocoder", "vocoder: 'loud' is unknown|griffin_lim", load(vocoder="loud")),
    bad(21, "unconditional_audio", "unconditional_audio: 'x'|zero_fbank", load(unconditional_audio="x")),
    bad(21, "no_adapters", "adapter: []|one or more", load(adapter=[])),
    bad(21, "unknown_device", "device: 'warp'", load(device="warp")),
    bad(21, "device_of_another_machine", "device: 'cuda:99'", load(device="cuda:99")),
    bad(21, "dtype", "dtype: 'float16'", load(dtype="float16")),
    bad(21, "dtype_of_integers", "dtype: torch.int32", load(dtype=torch.int32)),
    bad(21, "backbone_none", "backbone: None", load(backbone=None)),
    bad(21, "backbone_number", "backbone: 5", load(backbone=5)),
    bad(21, "backbone_empty", "backbone", load(backbone="")),
    bad(21, "adapter_number", "adapter: 5", load(adapter=5)),
    bad(21, "audio_encoder_none", "audio_encoder: None", load(audio_encoder=None)),
    bad(21, "loa_layers", "loa_layers: 'first'|mean_last_three",
        lambda r, e: AudioMAE.from_pretrained(tiny_parts(WINDOW)["audio_encoder"], "first")),  # type: ignore[arg-type]
    *(
        bad(22, f"adapter_{name}", f"culprit.safetensors|{words}", load(adapter=lambda r, c=change: r.adapter(c)))
        for name, (words, change) in WEIGHTS.items()
    ),
    *(
        bad(22, f"{name}_{suffix}", f"culprit.{suffix}", load(adapter=written(f"culprit.{suffix}", content)))
        for name, content in NO_WEIGHTS.items()
        for suffix in ("safetensors", "bin")
    ),
    bad(22, "adapter_truncated", "culprit.safetensors", load(adapter=written("culprit.safetensors", truncated))),
    bad(22, "adapter_gone", "gone.safetensors does not exist", load(adapter="gone.safetensors")),
    bad(22, "adapter_folder", "adapter", load(adapter=lambda r: r.path)),
    bad(22, "adapter_newer", "format version 99", load(adapter=newer_format)),
    bad(22, "adapter_odd_fingerprint", "backbone_fingerprint", load(adapter=odd_header(backbone_fingerprint="a b"))),
    bad(22, "adapter_odd_conventions", "loa_layers", load(adapter=odd_header(loa_layers="first"))),
    bad(22, "adapter_of_a_method", "gone.bin does not exist",
        lambda r, e: e.adapters[0].load(r.path / "gone.bin")),
    bad(22, "embedded_adapter", "adapter: 'embedded' was trained on the embedded backbone", load(adapter="embedded")),
    bad(22, "no_backbone", "holds no model_index.json", load(backbone=lambda r: r.path)),
    bad(22, "backbone_file", "backbone", load(backbone=lambda r: r.write("file", "x"))),
    bad(22, "index_no_json", "culprit", load(backbone=part("model_index.json", lambda p: p.write_text("{")))),
    bad(22, "index_of_a_list", "culprit", load(backbone=part("model_index.json", lambda p: p.write_text("[]")))),
    bad(22, "index_without_a_part", "culprit", load(backbone=part("model_index.json", lambda p: p.write_text("{}")))),
    bad(22, "unet_cut", "culprit", load(backbone=part("unet/diffusion_pytorch_model.safetensors", cut))),
    *(
        bad(22, f"{name}_without_a_layer", f"culprit|{name} lacks 1 of", load(backbone=part(weights_of(name), without_a_layer)))
        for name in PARTS
    ),
    bad(22, "encoder_without_a_layer", "audio_encoder|Missing key",
        load(audio_encoder=lambda r: part(weights_of("audio_encoder"), without_a_layer)(r) / "audio_encoder")),
    bad(22, "clap_without_a_layer", "clap|lacks 1 of", clap_without_a_layer),
    bad(22, "unet_gone", "culprit", load(backbone=part("unet/diffusion_pytorch_model.safetensors", Path.unlink))),
    bad(22, "unet_config_gone", "culprit", load(backbone=part("unet/config.json", Path.unlink))),
    bad(22, "unet_config_no_json", "culprit", load(backbone=part("unet/config.json", lambda p: p.write_text("{")))),
    bad(22, "unet_sizes", "culprit", load(backbone=part("unet/config.json", changed_json(block_out_channels=[8, 8, 8])))),
    bad(22, "unet_blocks", "culprit", load(backbone=part("unet/config.json", changed_json(down_block_types=["Magic"])))),
    bad(22, "gpt_cut", "culprit", load(backbone=part("language_model/model.safetensors", cut))),
    bad(22, "gpt_config_gone", "culprit", load(backbone=part("language_model/config.json", Path.unlink))),
    bad(22, "vocoder_config", "culprit", load(backbone=part("vocoder/config.json", changed_json(upsample_rates="a")))),
    bad(22, "tokenizer_gone", "culprit", load(backbone=part("tokenizer/tokenizer.json", lambda p: p.write_text("{")))),
    bad(22, "scheduler_prediction", "epsilon prediction is needed",
        load(backbone=part("scheduler/scheduler_config.json", changed_json(prediction_type="v_prediction")))),
    bad(22, "encoder_file", "audio_encoder", load(audio_encoder=lambda r: r.write("a.pth", "x"))),
    bad(22, "encoder_no_blocks", "audio_encoder", load(audio_encoder=written("a.safetensors", lambda r: safetensors.torch.save(
        {"pos_embed": torch.zeros(1, 513, 8), "patch_embed.proj.weight": torch.zeros(8, 1, 16, 16)})))),
    bad(22, "encoder_folder", "holds no config.json", load(audio_encoder=lambda r: r.path)),
    bad(22, "encoder_architecture", "audio_encoder", load(audio_encoder=encoder_config('{"architecture": "magic"}'))),
    bad(22, "encoder_config_empty", "audio_encoder", load(audio_encoder=encoder_config("{}"))),
    bad(22, "encoder_config_no_json", "audio_encoder", load(audio_encoder=encoder_config("{"))),
    bad(22, "clap_folder", "clap", lambda r, e: ClapEmbedder.from_pretrained(r.path)),
    bad(22, "clap_config_no_json", "clap", lambda r, e: ClapEmbedder.from_pretrained(r.write("clap/config.json", "{").parent)),
    bad(23, "unknown_suffix", "x.xyz: cannot write this format|.wav", save("x.xyz")),
    bad(23, "no_suffix", "cannot write this format", save("x")),
    bad(23, "nan_result", "NaN", save("x.wav", with_value(float("nan")))),
    bad(24, "backbone_hub_id", "hf download someone/audioldm2", load(backbone="someone/audioldm2")),
    bad(24, "audio_encoder_hub_id", "hf download someone/audiomae", load(audio_encoder="someone/audiomae")),
    bad(24, "adapter_hub_id", "hf download someone/adapter", load(adapter="someone/adapter")),
    bad(24, "clap_hub_id", "hf download someone/clap", lambda r, e: ClapEmbedder.from_pretrained("someone/clap")),
    bad(24, "neither_path_nor_id", "nowhere/at/all", lambda r, e: AudioLDM2Backbone.from_pretrained("nowhere/at/all")),
]  # fmt: skip

CASES = [*RECORDINGS, *DATA, *REQUESTS, *FILES]
