"""Stable Audio Open behind the command line: training, edits in stereo with every knob, an evaluation and a sweep."""

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from fit_tools import assert_resumed_exactly
from random_folders import tiny_backbone, tiny_stable_audio

from apa_lightning import AudioEditor
from apa_lightning.adapters.files import AdapterFile
from apa_lightning.audio import load_audio, save_audio
from apa_lightning.backbones.factory import load_backbone
from apa_lightning.cli.main import main
from apa_lightning.editing.knobs import knobs_of
from apa_lightning.editing.settings import EditSettings
from apa_lightning.evaluation.systems import SystemRequest
from apa_lightning.evaluation.systems.codec import Codec
from apa_lightning.evaluation.systems.no_op import NoOp

ROOT = Path(__file__).parents[2]
RATE = 44_100


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["apa_lightning"])


def flags(folder: Path) -> list[str]:
    return [f"--model.backbone={folder}", f"--model.audio_encoder={folder / 'audio_encoder'}"]


def fit(folder: Path, steps: int, *more: str) -> None:
    """A training of the base configuration with checkpoints, EMA, validation edits and their scores."""
    main(
        [
            "fit", "--config=configs/base.yaml", "--config=tests/small.yaml", *flags(tiny_stable_audio()),
            "--model.gradient_checkpointing=true", "--data.validation_samples=2", f"--trainer.max_steps={steps}",
            "--trainer.val_check_interval=2", f"--trainer.default_root_dir={folder}", *more,
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a run of four steps, and one of two steps that was resumed."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr("sys.argv", ["apa_lightning"])
        fit(folder / "whole", 4)
        fit(folder / "resumed", 2)
        first = next((folder / "resumed").glob("**/last.ckpt"))
        shutil.copy(first, folder / "two.ckpt")
        fit(folder / "resumed", 4, f"--ckpt_path={folder / 'two.ckpt'}")
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """An adapter that is no copy of the backbone's layers."""
    made = load_backbone(tiny_stable_audio()).new_adapter()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.5)
    made.save(path := tmp_path_factory.mktemp("adapter") / "mine.safetensors")
    return path


def tone(pitch: float, seconds: float, level: float = 0.3, rate: int = RATE) -> torch.Tensor:
    return level * torch.sin(2 * math.pi * pitch * torch.arange(round(seconds * rate)) / rate)


def test_a_run_trains_validates_and_writes_its_adapter(trained):
    adapter = next((trained / "whole").glob("**/adapter.safetensors"))
    file = AdapterFile.read(adapter)
    assert file.metadata["backbone_kind"] == "stable_audio" and file.metadata["time_code"] == "rotary"
    assert not load_backbone(tiny_stable_audio()).new_adapter(adapter).is_untrained
    edited = next((trained / "whole").glob("**/samples/step-*/*-edited.wav"))
    assert load_audio(edited)[1] == RATE


def test_a_resumed_run_is_the_whole_one_bit_for_bit(trained):
    assert_resumed_exactly(trained, 4)


def test_another_time_code_is_not_resumed(trained, capsys):
    given = {
        "class_path": "apa_lightning.StableAudioBackbone",
        "init_args": {"source": str(tiny_stable_audio()), "time_code": "none"},
    }
    with pytest.raises(SystemExit):
        fit(trained / "other", 6, f"--model.backbone={json.dumps(given)}", f"--ckpt_path={trained / 'two.ckpt'}")
    said = capsys.readouterr().err
    assert "model.backbone.init_args.time_code: none, but the checkpoint was trained with rotary" in said


def test_validate_and_cached_training(trained, tmp_path):
    adapter = next((trained / "whole").glob("**/adapter.safetensors"))
    shared = ["--config=tests/small.yaml", *flags(tiny_stable_audio()), "--trainer.callbacks=[]"]
    main(
        [
            "validate", "--config=configs/base.yaml", *shared, f"--model.adapter={adapter}",
            "--data.validation_samples=2", f"--trainer.default_root_dir={tmp_path}",
        ]
    )  # fmt: skip
    shards = [f"--data.{split}_shards=datamodules/embedded/{split}-000001.tar" for split in ("train", "validation")]
    main(
        [
            "fit", "--config=configs/base.yaml", "--config=configs/data/encoded.yaml", *shared, *shards,
            f"--data.cache={tmp_path / 'cache'}", "--data.windows_per_clip=1", "--trainer.max_steps=2",
            "--trainer.val_check_interval=2", f"--trainer.default_root_dir={tmp_path}",
        ]
    )  # fmt: skip
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2


#: One line of a manifest for each knob, on a recording of 4 s.
KNOBS: dict[str, dict] = {
    "negative_prompt": {"negative_prompt": "a piano"},
    "ap_scale": {"ap_scale": 0.0},
    "ap_scale_end": {"ap_scale": 0.9, "ap_scale_end": 0.1},
    "time_pooling": {"time_pooling": 8},
    "freq_pooling": {"freq_pooling": 8},
    "guidance_scale": {"guidance_scale": 1.0},
    "text_guidance_scale": {"text_guidance_scale": 3.0},
    "audio_guidance_scale": {"audio_guidance_scale": 3.0},
    "guidance_interval": {"guidance_interval": [0.0, 0.5]},
    "num_inference_steps": {"num_inference_steps": 3},
    "strength": {"strength": 0.6},
    "scheduler": {"scheduler": "DPMSolverMultistepScheduler"},
    "seed": {"seed": 5},
    "region": {"region": [1.0, 2.0]},
    "crossfade": {"region": [1.0, 2.0], "crossfade": 0.3},
    "extend": {"extend": [0.0, 1.0]},
    "window_overlap": {"extend": [0.0, 20.0], "window_overlap": 0.7},
    "audio_prompts": {"audio_prompts": [{"start": 0.5, "end": 1.5, "ap_scale": 0.8}]},
    "sample_rate": {"sample_rate": 22_050},
    "match_level": {"match_level": False},
    "task": {"task": "genre"},
}
BLOCKS = {"audioldm2": {"up": 1.0}, "stable_audio": {"transformer_blocks.1": 1.0}}


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_knob_works_on_both_backbones(kind, tmp_path):
    """Each knob changes the edit; the length and the kept parts stay."""
    folder = tiny_stable_audio() if kind == "stable_audio" else tiny_backbone(64)
    assert KNOBS.keys() == {n for n, (knob, _) in knobs_of(EditSettings).items() if knob.belongs_to("diffusion")}
    sound = torch.stack([tone(220, 4), tone(330, 4, 0.1)])
    save_audio(tmp_path / "song.wav", sound, RATE)
    long = {"extend": KNOBS["window_overlap"]["extend"]}
    lines = {"plain": {}, **KNOBS, "long": long, "blocks": {"ap_scale": BLOCKS[kind]}}
    manifest = tmp_path / "edits.jsonl"
    manifest.write_text(
        "".join(
            json.dumps({"id": name, "audio": "song.wav", "prompt": "a violin", "num_inference_steps": 2, **knobs})
            + "\n"
            for name, knobs in lines.items()
        )
    )
    main(
        [
            "predict", "--config=configs/predict.yaml", *flags(folder), "--model.adapter=null",
            f"--data.manifest={manifest}", f"--data.output={tmp_path / 'edits'}", "--data.batch_size=1",
        ]
    )  # fmt: skip
    made = {name: load_audio(tmp_path / "edits" / f"{name}.wav") for name in lines}
    plain, rate = made.pop("plain")
    assert rate == RATE and plain.shape == ((2 if kind == "stable_audio" else 1), 4 * RATE)
    for name, (edit, rate) in made.items():
        seconds = {"extend": 5, "long": 24, "window_overlap": 24}.get(name, 4)
        assert edit.shape[1] == round(seconds * rate) and rate == (22_050 if name == "sample_rate" else RATE), name
        assert edit.shape != plain.shape or not torch.equal(edit, plain), name
    assert not torch.equal(made["window_overlap"][0], made["long"][0])
    mono = sound.mean(dim=0, keepdim=True)
    kept = made["region"][0][:, : RATE - 10] - (sound if kind == "stable_audio" else mono)[:, : RATE - 10]
    assert kept.abs().max() < 1e-4


def test_stereo_stays_stereo_and_mono_mono(tmp_path, adapter):
    """A folder of recordings, by two adapters: short and long, stereo and mono, quiet and loud, at other rates."""
    songs = {
        "stereo": (torch.stack([tone(220, 2), tone(330, 2, 0.05)]), RATE),
        "long": (torch.stack([tone(220, 7, rate=48_000), tone(440, 7, rate=48_000)]), 48_000),
        "mono": (tone(220, 2, rate=22_050)[None], 22_050),
        "opposed": (torch.stack([tone(220, 2), -tone(220, 2)]), RATE),
        "three": (torch.stack([tone(220, 2), tone(330, 2), tone(440, 2)]), RATE),
    }
    for name, (sound, rate) in songs.items():
        save_audio(tmp_path / "songs" / f"{name}.wav", sound, rate)
    main(
        [
            "predict", "--config=configs/predict.yaml", *flags(tiny_stable_audio()), f"--model.adapter={adapter}",
            f"--model.further_adapters=[{adapter}]", "--data.ap_scale=[0.5, 0.2]", f"--data.folder={tmp_path / 'songs'}",
            "--data.prompt=a violin", "--data.num_inference_steps=2", f"--data.output={tmp_path / 'edits'}",
        ]
    )  # fmt: skip
    for name, (sound, rate) in songs.items():
        edit, edited_rate = load_audio(tmp_path / "edits" / f"{name}.wav")
        assert edited_rate == rate and edit.shape == (2 if len(sound) == 2 else 1, sound.shape[1]), name
        wanted = sound if len(sound) == 2 else sound.mean(dim=0)
        level = wanted.square().mean().sqrt()
        assert 0.3 * level < edit.square().mean().sqrt() < 1.01 * level, name
        assert len(edit) == 1 or not torch.equal(edit[0], edit[1]), name


def test_channels_are_not_swapped_and_keep_their_balance(monkeypatch):
    """With a codec that loses nothing and a model that changes nothing, the recording comes back channel by channel.

    So it does from the systems that make no edit, also where it is longer than the window, and mono where it is mono.
    """
    editor = AudioEditor.from_pretrained(tiny_stable_audio(), None, tiny_stable_audio() / "audio_encoder")
    seen = []

    def encode(waveform, lengths=None):
        seen.append(waveform)
        return (torch.zeros(len(waveform), 8, waveform.shape[-1] // 2048),) * 2

    monkeypatch.setattr(editor.backbone, "encode_moments", encode)
    monkeypatch.setattr(editor.backbone, "decode", lambda latents: seen.pop())
    knobs = {"prompt": "a violin", "num_inference_steps": 1, "strength": 0.5}
    for seconds in (2, 7):
        stereo = torch.stack([tone(220, seconds), tone(330, seconds, 0.05)])
        for sound in (stereo, stereo[0]):
            request = SystemRequest(audio=(sound, RATE), **knobs)
            edit = editor.edit(request, progress=False)
            for result in (edit, *Codec().edit(editor, [request]), *NoOp().edit(editor, [request])):
                assert result.waveform.shape == sound.shape and (result.waveform - sound).abs().max() < 1e-4
            assert edit.record()["seconds"] == seconds


def test_alpha_0_makes_the_bytes_of_the_untouched_backbone_and_defaults_are_the_kinds(adapter):
    encoder = tiny_stable_audio() / "audio_encoder"
    ours, plain = (AudioEditor.from_pretrained(tiny_stable_audio(), file, encoder) for file in (adapter, None))
    knobs = {"prompt": "a violin", "num_inference_steps": 2, "progress": False}
    song = (torch.stack([tone(220, 2), tone(330, 2)]), RATE)
    silent = [editor.edit(song, ap_scale=0.0, **knobs).waveform for editor in (ours, plain)]
    assert torch.equal(*silent)
    result = ours.edit(song, **knobs)
    assert not torch.equal(result.waveform, plain.edit(song, **knobs).waveform)
    assert result.request.guidance == (7.0, 1.5)
    both = AudioEditor.from_pretrained(tiny_stable_audio(), [adapter, adapter], encoder)
    halves = both.edit(song, ap_scale=[0.5, 0.0], **knobs)
    assert torch.equal(halves.waveform, result.waveform)


def test_neighbours_in_a_batch_do_not_change_an_edit(adapter):
    from apa_lightning import EditRequest

    editor = AudioEditor.from_pretrained(tiny_stable_audio(), adapter, tiny_stable_audio() / "audio_encoder")
    songs = [(torch.stack([tone(220 * i, 1 + i / 2), tone(330, 1 + i / 2)]), RATE) for i in (1, 2)]
    requests = [
        EditRequest(audio=song, prompt=f"jazz {i}", num_inference_steps=2, id=str(i)) for i, song in enumerate(songs)
    ]
    together = editor.edit(requests, progress=False)
    alone = [editor.edit(request, progress=False) for request in requests]
    assert all((one.waveform - other.waveform).abs().max() < 1e-3 for one, other in zip(together, alone, strict=True))


SYSTEMS = ("adapter", "untrained", "text_only", "sdedit", "ddpm_inversion", "direct_audio_edit", "no_op", "codec")


def test_evaluate_and_sweep(tmp_path, adapter):
    """By all systems; a stereo source is edited in stereo and a mono one in mono."""
    save_audio(tmp_path / "songs" / "piano_0.wav", torch.stack([tone(220, 2), tone(330, 2, 0.1)]), RATE)
    save_audio(tmp_path / "songs" / "violin_0.wav", tone(330, 2), RATE)
    metrics = [{"class_path": f"apa_lightning.metrics.{name}"} for name in ("ClapScore", "ChromaSimilarity")]
    command = [
        "evaluate", "--config=configs/evaluate.yaml", *flags(tiny_stable_audio()), f"--model.adapter={adapter}",
        f"--data.sources={tmp_path / 'songs'}", "--data.num_inference_steps=2", f"--data.output={tmp_path / 'evaluation'}",
        f"--data.systems=[{', '.join(SYSTEMS)}]", f"--data.metrics={json.dumps(metrics)}", "--data.grid={ap_scale: [0.2]}",
        '--data.tasks=[{"name": "timbre", "prompt": "a recording of a {target} solo", "targets": ["piano", "violin"]}]',
    ]  # fmt: skip
    main(command)
    with open(tmp_path / "evaluation" / "results.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["system"] for row in rows} == {*SYSTEMS, "adapter ap_scale=0.2"} and len(rows) == 2 * (len(SYSTEMS) + 1)
    assert all(float(row["chroma"]) > 0.95 for row in rows if row["system"] == "no_op")
    for row in rows:
        channels = 2 if row["instrument"] == "piano" else 1
        assert load_audio(tmp_path / "evaluation" / row["output"])[0].shape == (channels, 2 * RATE), row["system"]
    main(["sweep", f"--results={tmp_path / 'evaluation'}"])
    assert list((tmp_path / "evaluation").rglob("edit_defaults.yaml"))


def test_the_adapter_command_describes_and_converts(tmp_path, adapter, capsys):
    to = tmp_path / "mine.bin"
    main(["adapter", f"--source={adapter}", f"--to={to}", f"--backbone={tiny_stable_audio()}"])
    assert "2 layers" in capsys.readouterr().out
    published = torch.load(to, weights_only=True)
    own = safetensors.torch.load_file(adapter)
    assert published.keys() == own.keys() and all(torch.equal(published[name], value) for name, value in own.items())


def test_what_is_audioldm2s_alone_is_refused_by_name(tmp_path, capsys):
    save_audio(tmp_path / "songs" / "a.wav", tone(220, 2), RATE)
    shared = [
        "predict",
        "--config=configs/predict.yaml",
        *flags(tiny_stable_audio()),
        f"--data.folder={tmp_path / 'songs'}",
    ]
    shared += ["--data.prompt=a violin", f"--data.output={tmp_path / 'edits'}"]
    for more, message in (
        (["--model.adapter=null", "--model.vocoder=refined"], "vocoder: 'refined' belongs to another kind of backbone"),
        (
            ["--model.adapter=embedded"],
            "'embedded' was trained on the embedded backbone, whose weights differ",
        ),
        (["--model.adapter=null", "--data.scheduler=EDMEulerScheduler"], "its timesteps are log(sigma) / 4"),
        (
            ["--model.adapter=null", "--data.time_pooling=16"],
            "time_pooling: 16; choose one of 1, 2, 3, 4, 6, 8, 12, 24",
        ),
    ):
        with pytest.raises(SystemExit) as end:
            main([*shared, *more])
        assert end.value.code == 2 and message in " ".join(capsys.readouterr().err.split())
