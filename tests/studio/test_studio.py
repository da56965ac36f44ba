"""The studio without a browser: its form, sessions, queue and command."""

import json
import subprocess
import threading
import time

import numpy as np
import pytest
import soundfile
import torch
from recordings import tone

from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.editing.request import EditRequest
from apa_lightning.editing.source import Recording
from apa_lightning.errors import InputError
from apa_lightning.studio import form
from apa_lightning.studio.command import checked, studio
from apa_lightning.studio.jobs import CANCELED, DONE, FAILED, Job, Jobs
from apa_lightning.studio.pictures import WIDTH, pixels
from apa_lightning.studio.results import compared, history, status
from apa_lightning.studio.service import Studio

FAST = {"num_inference_steps": 1}


def over(job: Job) -> Job:
    end = time.monotonic() + 60
    while job.is_open and time.monotonic() < end:
        time.sleep(0.02)
    return job


@pytest.fixture
def service(editor, jobs, sessions) -> Studio:
    return Studio(editor, sessions, jobs, {})


def test_an_edit_of_a_region_with_variations_and_text_alone(service, sessions, tmp_path):
    session = sessions.open(None)
    upload = session.add_recording(tone(tmp_path / "song.wav", 2, rate=22_050), "../../my <b>song</b>.wav")
    assert upload.name == "b>.wav"  # what follows the last slash
    values = {"recording": upload.id, "prompt": " a violin ", "region": {"start": 0.5, "end": 1.5}, "seed": 3.0}
    values |= {"num_inference_steps": " 1 ", "ap_scale": ""}
    job = over(service.submit(session.token, values | {"variations": 2, "text_only": True, "task": "timbre"}))
    assert (job.state, job.finished, job.share) == (DONE, 3, 1)
    records = session.edits()
    assert [one["kind"] for one in records] == ["text_only", "edit", "edit"]
    assert [one["settings"]["seed"] for one in records] == [3, 4, 3]
    assert [one["settings"]["ap_scale"] for one in records] == [0, 0.5, 0.5]
    assert len(history(session)) == 2
    source, _ = soundfile.read(session.file_of(upload), dtype="float32")
    for suffix in ("wav", "flac"):
        edited, rate = soundfile.read(session.audio_of(records[2], suffix), dtype="float32")
        assert rate == 22_050
        assert np.abs(edited - source)[: rate // 2].max() < 1e-3 < np.abs(edited - source)[rate : int(1.4 * rate)].max()
    takes = compared(session, records[2])
    assert [take["key"] for take in takes] == ["A", "B", "X"]
    assert max(take["gain"] for take in takes) == 1
    assert sessions.open(session.token).edits() == records  # after a restart


def test_what_cannot_be_edited_is_said_in_one_sentence(service, sessions, tmp_path):
    session = sessions.open(None)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"^song.wav: not a readable audio file"):
        session.add_recording(tmp_path / "bad.wav", "song.wav")
    with pytest.raises(InputError, match=r"long.wav: lasts 11 s; this studio takes up to 10 s"):
        session.add_recording(tone(tmp_path / "long.wav", 11), "long.wav")
    assert not session.folder.exists()
    upload = session.add_recording(tone(tmp_path / "song.wav"), "song.wav")
    good = {"recording": upload.id, "prompt": "a violin", "variations": 1}
    for values, message in (
        ({"recording": "../../etc"}, "Drop or record a recording first"),
        ({"recording": "0" * 32}, "Drop or record a recording first"),
        ({"prompt": "  "}, "prompt: is empty"),
        ({"variations": 99}, "variations: 99; give 1 to 8"),
        ({"variations": None}, "variations: None; give 1 to 8"),
        ({"time_pooling": "3.0"}, "time_pooling: 3"),
        ({"guidance_scale": "lots"}, "guidance_scale: 'lots'"),
        ({"region": {"start": 5, "end": 9}}, "region: 5 to 9 s lies outside song.wav"),
        ({"region": {"start": "x"}}, "region: "),
        ({"task": "remix"}, "task: 'remix'"),
        ({"scheduler": "Nonsense"}, "scheduler: 'Nonsense'"),
        ({"extend": "[0, -1]"}, "extend: "),
    ):
        with pytest.raises(InputError, match=f"^{message}"):
            service.submit(session.token, good | values)
    assert sessions.open("../..").folder.parent == sessions.folder
    assert sessions.open(upload.id).recording(upload.id) is None  # of another browser


def test_a_full_folder_takes_nothing_more(service, sessions, tmp_path):
    session = sessions.open(None)
    upload = service.accept(session.token, str(tone(tmp_path / "song.wav")))
    sessions.max_gigabytes = 1e-5  # 10 kB
    for call in (
        lambda: service.accept(session.token, str(tmp_path / "song.wav")),
        lambda: service.submit(session.token, {"recording": upload.id, "prompt": "a violin", "variations": 1}),
    ):
        with pytest.raises(InputError, match=r"^The studio is full: its folder has .* GB\. .*`max_gigabytes`"):
            call()
    assert len(list(session.folder.iterdir())) == 1


class SlowEditor:
    """Makes steps until it is told to finish."""

    def __init__(self):
        self.started, self.finish = threading.Event(), threading.Event()

    def edit(self, audio, *, progress):
        if audio.prompt == "fail":
            raise RuntimeError("out of memory")
        for step in range(1, 10_000):
            progress(min(step, 9), 10)
            self.started.set()
            if self.finish.wait(0.01):
                return audio


def test_jobs_take_turns_and_can_be_canceled(caplog):
    editor = SlowEditor()
    jobs, kept = Jobs(editor, most=3, most_per_owner=2), []
    request = EditRequest(audio=(torch.ones(8000), 8000), prompt="")

    def job(owner: str, prompt: str = "") -> Job:
        made = Job(owner, [EditRequest(audio=request.audio, prompt=prompt)], lambda result, number: kept.append(owner))
        jobs.submit(made)
        return made

    first, second, third = job("ann"), job("ann"), job("ben")
    with pytest.raises(InputError, match="Your earlier edits are not done yet"):
        job("ann")
    with pytest.raises(InputError, match="3 edits of others are waiting"):
        job("eve")
    assert editor.started.wait(10)
    assert (jobs.ahead(third), jobs.of("ben"), jobs.of("ann")) == (2, third, first)
    assert "Waiting: 2 before you" in status(third, 2)
    assert "Making 1 of 1" in status(first) and "<progress" in status(first) and "left" in status(first)
    jobs.cancel("ann")
    assert over(first).state == over(second).state == CANCELED
    failing = job("eve", "fail")
    editor.finish.set()
    assert (over(third).state, kept) == (DONE, ["ben"])
    assert over(failing).state == FAILED
    assert 'role="alert"' in status(failing) and "out of memory" not in status(failing)
    assert over(job("ann")).state == DONE
    jobs.close()


def test_a_function_gets_the_steps_of_an_edit_and_can_stop_it(editor, tmp_path):
    calls = []
    audio = str(tone(tmp_path / "song.wav"))
    made = editor.edit(audio, prompt="a violin", num_inference_steps=3, progress=lambda *call: calls.append(call))
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert torch.equal(
        made.waveform, editor.edit(audio, prompt="a violin", num_inference_steps=3, progress=False).waveform
    )

    def stop(done: int, total: int) -> None:
        if done == 1:
            raise KeyError("stopped")

    with pytest.raises(KeyError, match="stopped"):
        editor.edit(audio, prompt="a violin", num_inference_steps=3, progress=stop)


def test_the_sliders_move_the_knobs_around_the_backbones_values():
    defaults = EditDefaults({"guidance_scale": 4, "tasks": {"genre": {"ap_scale": 0.4}}})
    assert form.moved(defaults, None, 50, 50) == dict.fromkeys(form.MOVED)
    rest = dict.fromkeys(form.MOVED)
    moved = {"ap_scale": 0.8, "time_pooling": 1, "guidance_scale": 16}
    assert form.moved(defaults, "genre", 100, 100) == rest | moved
    assert form.moved(defaults, None, 0, 0) == rest | {"ap_scale": 0, "time_pooling": 4, "guidance_scale": 1}
    scales = [form.moved(defaults, None, keep, 50)["ap_scale"] for keep in range(0, 50, 5)]
    assert scales == sorted(scales)


def test_what_follows_a_moved_knob_keeps_the_backbones_value():
    stored = {"ap_scale": {"up": 2.0}, "ap_scale_end": [1.0], "freq_pooling": 8, "guidance_scale": 4}
    stored |= {"text_guidance_scale": 9, "audio_guidance_scale": 1.5, "guidance_interval": [0.1, 0.9]}
    defaults = EditDefaults(stored)
    kept = {name: value for name, value in form.moved(defaults, None, 100, 25).items() if value is not None}
    assert kept == {
        "ap_scale": {"up": 4.0},
        "ap_scale_end": [2.0],
        "time_pooling": 1,
        "freq_pooling": 8,
        "guidance_scale": 2,
        "text_guidance_scale": 3,
        "audio_guidance_scale": 1.5,
        "guidance_interval": [0.1, 0.9],
    }


def test_presets_are_those_of_the_task_files():
    assert set(form.presets()) == {"timbre", "genre", "accompaniment"}
    papers = EditDefaults()
    assert form.texts_of(papers, "timbre", "violin", "piano") == (
        "a recording of a violin solo",
        "a recording of the piano solo",
    )
    assert form.texts_of(papers, "timbre", "violin", "") == ("a recording of a violin solo", "")
    assert form.texts_of(papers, "genre", "{source}", "{target}") == ("{source} style music", "low quality music")
    own = EditDefaults({"tasks": {"genre": {"negative_prompt": ""}}})
    assert form.texts_of(own, "genre", "jazz", "piano") == ("jazz style music", "")


def test_copied_code_makes_the_same_edit(editor, tmp_path, monkeypatch):
    name = "it's a 'song' $(touch x) END.wav"
    recording = Recording.load(str(tone(tmp_path / name)))
    values = {"prompt": "'''\nEND\n$(touch y)`touch z`", "negative_prompt": "", "region": (0.2, 0.7), "seed": 5, **FAST}
    [request] = form.requests(values, recording, editor)
    made = editor.edit(request, progress=False)
    settings = json.loads(json.dumps(made.record()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "apa_lightning.AudioEditor.from_pretrained", lambda **parts: editor if parts == {"device": "cpu"} else 0
    )
    found: dict = {}
    exec(form.python_code(name, settings, {"device": "cpu"}), found)
    assert torch.equal(found["result"].waveform, made.waveform)
    written, _, ran = form.command_line(name, settings, {"adapter": "my file"}).rpartition("python -m")
    subprocess.run(["bash", "-c", written], check=True)
    assert {path.name for path in tmp_path.iterdir()} == {name, "edit.jsonl", "edit.wav"}
    row = json.loads((tmp_path / "edit.jsonl").read_text())
    assert (row["audio"], row["prompt"], row["region"]) == (name, values["prompt"], [0.2, 0.7])
    assert ran.endswith("--model.adapter 'my file'")


@pytest.mark.parametrize("seconds", [0.25, 3])
def test_the_picture_shows_where_the_sound_is(seconds):
    waveform = torch.zeros(round(16_000 * seconds))
    half = len(waveform) // 2
    waveform[half:] = torch.sin(torch.arange(len(waveform) - half) * 0.5)
    picture = pixels(waveform, 16_000).astype(int)
    assert picture.shape[1:] == (WIDTH, 3)
    assert picture[:, : WIDTH // 3].mean() < 0.5 * picture[:, -WIDTH // 3 :].mean()


def test_the_command_refuses_before_it_loads_anything(tmp_path):
    with pytest.raises(InputError, match=r"^public: .* give a `password_file`"):
        studio(public=True)
    short = tmp_path / "password"
    short.write_text("secret\n")
    with pytest.raises(InputError, match="shorter than 8"):
        studio(public=True, password_file=short)
    with pytest.raises(InputError, match="missing cannot be read"):
        studio(password_file=tmp_path / "missing")
    for setting in (
        {"port": 0},
        {"max_megabytes": 0},
        {"max_seconds": -1.0},
        {"max_gigabytes": 0.0},
        {"max_waiting": 0},
    ):
        with pytest.raises(InputError, match=f"^{next(iter(setting))}: "):
            studio(**setting)


def test_only_the_password_opens(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    check = checked("pässword")
    assert check("studio", "pässword")
    assert not check("studio", "password") and not check("admin", "pässword")
