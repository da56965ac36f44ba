"""Defaults of edits that belong to a backbone: where they come from, which wins, and what a bad file says."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from random_folders import tiny_backbone
from shard_tools import tone

from apa_lightning import AudioEditor, EditRequest, InputError
from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone
from apa_lightning.cli.main import main
from apa_lightning.edit_jobs.editor_checks import check_against_editor
from apa_lightning.edit_jobs.plan import Edit
from apa_lightning.edit_jobs.queue import _key
from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.editing.settings import EditSettings
from apa_lightning.utils.pretrained import packaged

ROOT = Path(__file__).parents[2]
PAPER = {
    "ap_scale": 0.5,
    "time_pooling": 2,
    "guidance_scale": 7.5,
    "num_inference_steps": 50,
    "scheduler": "DDIMScheduler",
}
STORED = {
    "guidance_scale": 3.0,
    "text_guidance_scale": 5.0,
    "num_inference_steps": 2,
    "tasks": {"genre": {"guidance_scale": 4.0}, "remix": {"ap_scale": {"up": 0.2}, "negative_prompt": "noise"}},
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A tiny backbone with defaults of its own."""
    shutil.copytree(tiny_backbone(64), tmp_path / "backbone")
    (tmp_path / "backbone" / "edit_defaults.yaml").write_text(yaml.safe_dump(STORED))
    return tmp_path / "backbone"


def values(settings: EditSettings, *names: str) -> tuple:
    return tuple(getattr(settings, name) for name in names)


@pytest.mark.parametrize("source", [None, {}, "paper"])
def test_without_any_they_are_the_papers(source):
    defaults = EditDefaults(source)
    general, genre = defaults.fill(EditSettings()), defaults.fill(EditSettings(task="genre"))
    assert {name: getattr(general, name) for name in PAPER} == PAPER and general.negative_prompt == ""
    assert values(genre, "ap_scale", "time_pooling", "negative_prompt") == (0.4, 1, "low quality music")
    assert {name: getattr(genre, name) for name in ("guidance_scale", "num_inference_steps")} == {
        name: PAPER[name] for name in ("guidance_scale", "num_inference_steps")
    }
    assert defaults.tasks == ("timbre", "genre", "accompaniment")


def test_the_user_wins_over_the_task_over_the_backbone_over_the_paper():
    defaults = EditDefaults(STORED)
    assert set(defaults.tasks) == {"timbre", "genre", "accompaniment", "remix"}
    assert values(defaults.fill(EditSettings()), "guidance_scale", "num_inference_steps", "ap_scale") == (3.0, 2, 0.5)
    genre = defaults.fill(EditSettings(task="genre", num_inference_steps=7))
    assert values(genre, "guidance_scale", "num_inference_steps", "ap_scale") == (4.0, 7, 0.4)
    remix = defaults.fill(EditSettings(task="remix"))
    assert values(remix, "ap_scale", "negative_prompt", "guidance_scale") == ({"up": 0.2}, "noise", 3.0)
    assert defaults.fill(EditSettings(task="remix", negative_prompt="")).negative_prompt == ""
    assert defaults.fill(remix) == remix


def test_a_knob_that_follows_another_is_the_backbones_only_where_that_is():
    """Otherwise a stored text_guidance_scale would silently outlast the guidance_scale that somebody asks for."""
    defaults = EditDefaults({**STORED, "time_pooling": 4, "freq_pooling": 2, "ap_scale": 1.0, "ap_scale_end": 0.0})
    stored = defaults.fill(EditSettings())
    names = ("text_guidance_scale", "freq_pooling", "ap_scale_end")
    assert values(stored, *names) == (5.0, 2, 0.0)
    assert stored.guidance == (5.0, 3.0)
    asked = defaults.fill(EditSettings(guidance_scale=6.0, time_pooling=1, ap_scale=0.3))
    assert values(asked, *names) == (None, None, None) and asked.guidance == (6.0,)
    assert defaults.fill(EditSettings(task="genre")).text_guidance_scale is None  # the task names a guidance_scale


def test_a_folder_carries_its_own_and_results_show_them(folder):
    editor = AudioEditor.from_pretrained(folder, None, folder / "audio_encoder")
    clip = (torch.from_numpy(tone(1.0)).float(), 16_000)
    made = editor.edit(clip, prompt="x", progress=False)
    assert values(made.request, "guidance_scale", "text_guidance_scale", "num_inference_steps") == (3.0, 5.0, 2)
    assert made.record()["guidance_scale"] == 3.0 and made.record()["ap_scale"] == 0.5
    asked = editor.edit(
        clip, prompt="x", guidance_scale=3.0, text_guidance_scale=5.0, num_inference_steps=2, progress=False
    )
    assert torch.equal(made.waveform, asked.waveform)
    paper = AudioEditor.from_pretrained(folder, None, folder / "audio_encoder", edit_defaults="paper")
    assert values(paper.filled(EditSettings()), *PAPER) == (*PAPER.values(),)
    with pytest.raises(InputError, match=r"^task: 'jaz' .*choose from genre, remix, timbre, accompaniment"):
        editor.edit(clip, prompt="x", task="jaz")
    edit = Edit(EditRequest(audio=clip, prompt="x", task="jaz"), "a", Path("a.wav"), "a.wav", "m.csv:2", None)
    with pytest.raises(InputError, match=r"m.csv:2: task: 'jaz' is not one that the backbone knows"):
        check_against_editor([edit], EditSettings(), editor)


def test_the_key_of_an_edit_has_the_real_values():
    """Finished edits of other defaults are made again; the task's name itself changes nothing."""
    request = EditRequest(audio="a.wav", prompt="x")
    keys = {source: _key(EditDefaults(source).fill(request), {}) for source in (None, "paper")}
    given = EditDefaults().fill(replace(request, guidance_scale=3.0))
    assert (
        keys[None] == keys["paper"] != _key(EditDefaults({"guidance_scale": 3.0}).fill(request), {}) == _key(given, {})
    )
    assert _key(replace(given, task="timbre"), {}) == _key(given, {})


def test_predict_takes_a_rows_task_and_writes_the_values(folder, tmp_path, monkeypatch):
    import soundfile

    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", tone(1.0), 16_000)
    Path("m.csv").write_text(
        "id,audio,prompt,task,guidance_scale\nplain,a.wav,x,,\nstyle,a.wav,x,genre,\nown,a.wav,x,genre,2\n"
    )
    command = [
        "predict", f"--config={ROOT}/configs/predict.yaml", f"--model.backbone={folder}",
        f"--model.audio_encoder={folder}/audio_encoder", "--model.adapter=null",
        "--trainer.accelerator=cpu", "--data.manifest=m.csv", "--data.batch_size=3",
    ]  # fmt: skip

    def rows() -> dict[str, dict[str, str]]:
        with open("edits/results.csv", encoding="utf-8-sig", newline="") as file:
            return {row["id"]: row for row in csv.DictReader(file)}

    main(command)
    found = {name: (row["task"], row["guidance_scale"], row["ap_scale"]) for name, row in rows().items()}
    assert found == {"plain": ("", "3.0", "0.5"), "style": ("genre", "4.0", "0.4"), "own": ("genre", "2.0", "0.4")}
    (folder / "edit_defaults.yaml").write_text(yaml.safe_dump({**STORED, "tasks": {"genre": {"guidance_scale": 5.0}}}))
    main(command)
    assert rows()["style"]["guidance_scale"] == "5.0"
    lines = [json.loads(line)["id"] for line in Path("edits/results.jsonl").read_text().splitlines()]
    assert lines == ["plain", "style", "own", "style"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("guidance_scale: -1", "guidance_scale: -1; give a number of 0 or more"),
        ("tasks: {genre: {time_pooling: 0}}", "tasks.genre.time_pooling: 0; "),
        ("guidance: 3", "guidance is not a knob with a default; choose from negative_prompt, ap_scale, .*tasks"),
        ("tasks: {genre: {seed: 3}}", "tasks.genre.seed is not a knob with a default"),
        ("tasks: {genre: 0.5}", "tasks.genre: 0.5 is not a mapping"),
        ("tasks: [genre]", r"tasks: \['genre'\] is not a mapping"),
        ("[1, 2]", r"\[1, 2\] is not a mapping; give values by knob"),
        ("just text", "'just text' is not a mapping"),
        ("a: [", "is not a readable YAML file"),
        ("!!python/object/apply:os.getcwd []", "is not a readable YAML file"),
        (b"\xff\xfe\x00", "is not a readable YAML file"),
    ],
)
def test_a_bad_file_says_where_and_what(tmp_path, content, message):
    file = tmp_path / "edit_defaults.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"^edit_defaults: {file}.*{message}"):
        EditDefaults(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("scheduler: Magic", "scheduler: 'Magic'"),
        (
            "tasks: {timbre: {num_inference_steps: 1000}}",
            "tasks.timbre: num_inference_steps: DDIMScheduler cannot make 1000",
        ),
        ("time_pooling: 64", "time_pooling: 64; choose one of"),
    ],
)
def test_what_does_not_suit_the_backbone_is_told_when_it_is_loaded(folder, content, message):
    (folder / "edit_defaults.yaml").write_text(content)
    with pytest.raises(InputError, match=f"^edit_defaults: {folder}/edit_defaults.yaml: {message}"):
        AudioEditor.from_pretrained(folder, None, folder / "audio_encoder")


def test_an_empty_file_is_the_papers_and_a_missing_one_is_named(folder):
    (folder / "edit_defaults.yaml").write_text("")
    assert EditDefaults(AudioLDM2Backbone.from_pretrained(folder).edit_defaults).is_papers
    with pytest.raises(FileNotFoundError, match=r"^edit_defaults: nowhere.yaml does not exist\. Give .*'paper'"):
        AudioEditor.from_pretrained(folder, edit_defaults="nowhere.yaml")


def test_the_pocket_has_its_own():
    defaults = EditDefaults(packaged() / "edit_defaults.yaml")
    assert defaults.of()["guidance_scale"] != 7.5 and not defaults.is_papers
    assert set(defaults.tasks) == {"timbre", "genre", "accompaniment"}
