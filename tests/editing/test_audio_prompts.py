"""Several audio prompts of one edit: what each adapter reads, from which part of which recording, and what is refused."""

import pytest
import soundfile
import torch
from random_folders import tiny_parts

from apa_lightning import AudioEditor, EditRequest, InputError
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.editing.settings import EditSettings

RATE = 16_000


@pytest.fixture(scope="module")
def editor() -> AudioEditor:
    """Two adapters, the second one far from its copy of the text layers, and a window of 2.56 s."""
    editor = AudioEditor.from_pretrained(**tiny_parts(64), adapter=[None, None])
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in editor.adapters[1].parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=draw))
    editor.adapters[1].name = "timbre"
    return editor


def noise(seconds: float, seed: int) -> tuple[torch.Tensor, int]:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed)), RATE


TUNE, OTHER = noise(2.0, 1), noise(3.0, 2)


def edit(editor: AudioEditor, audio=TUNE, **knobs) -> torch.Tensor:
    settings = {"prompt": "a violin", "num_inference_steps": 2, "ap_scale": 0.8, "progress": False} | knobs
    return editor.edit(audio, **settings).waveform


def test_without_prompts_every_adapter_reads_the_recording(editor):
    alone = edit(editor)
    for spelled in (
        [{}, {"adapter": 1}],
        [{"audio": None, "adapter": 0, "ap_scale": 0.8, "time_pooling": 2, "freq_pooling": 2}, {"adapter": "timbre"}],
        [{"audio": TUNE, "start": 0}, {"audio": TUNE, "adapter": 1}],
    ):
        assert torch.equal(edit(editor, audio_prompts=spelled), alone)
    assert not torch.equal(edit(editor, audio_prompts=[{}]), alone)  # the first adapter only


def test_an_entry_has_the_edits_own_values_where_it_has_none(editor):
    """One scale for each adapter; a pooling rate of the entry is that of both axes."""
    knobs = {"ap_scale": [0.2, 0.9], "time_pooling": 4, "freq_pooling": 1}
    spelled = {"adapter": 1, "ap_scale": 0.9, "time_pooling": 4, "freq_pooling": 1}
    assert torch.equal(
        edit(editor, audio_prompts=[{"adapter": 1}], **knobs), edit(editor, audio_prompts=[spelled], ap_scale=0.0)
    )
    assert torch.equal(
        edit(editor, audio_prompts=[{"time_pooling": 8}], **knobs),
        edit(editor, audio_prompts=[{"time_pooling": 8, "freq_pooling": 8, "ap_scale": 0.2}]),
    )


def test_halves_of_one_prompt_add_up_to_the_whole(editor):
    whole = edit(editor, audio_prompts=[{"adapter": "timbre"}])
    halves = edit(editor, audio_prompts=[{"adapter": "timbre", "ap_scale": 0.4}] * 2)
    torch.testing.assert_close(halves, whole, atol=1e-5, rtol=0)
    assert (edit(editor, audio_prompts=[{"adapter": "timbre", "ap_scale": 0.4}]) - whole).abs().max() > 1e-3


def test_each_prompt_has_its_own_alpha_by_step(editor):
    """An entry's own alpha holds, another moves as that of the edit does, or to the entry's own end."""
    knobs = {"ap_scale": [0.2, 0.9], "ap_scale_end": [0.8, 0.1], "num_inference_steps": 3}
    spelled = [{"ap_scale": 0.2, "ap_scale_end": 0.8}, {"adapter": 1, "ap_scale": 0.9, "ap_scale_end": 0.1}]
    moving = edit(editor, **knobs)
    assert torch.equal(edit(editor, audio_prompts=[{}, {"adapter": 1}], **knobs), moving)
    assert torch.equal(edit(editor, audio_prompts=spelled, num_inference_steps=3), moving)
    held = [{"ap_scale": 0.2}, {"adapter": 1, "ap_scale_end": 0.9}]
    assert torch.equal(
        edit(editor, audio_prompts=held, **knobs), edit(editor, ap_scale=[0.2, 0.9], num_inference_steps=3)
    )


def tokens_read(editor: AudioEditor, monkeypatch, **knobs) -> list[torch.Tensor]:
    """The audio tokens that the backbone gets for the first window, without the unconditional branch."""
    read, predict = [], editor.backbone.predict
    with monkeypatch.context() as patch:
        patch.setattr(editor.backbone, "predict", lambda *a: read.append(a[-1]) or predict(*a))
        edit(editor, guidance_scale=1.0, num_inference_steps=1, **knobs)
    return read[0]


def tokens_of(editor: AudioEditor, waveform: torch.Tensor, rate: int = 2) -> torch.Tensor:
    grid = editor.audio_encoder(waveform[None, : editor.backbone.window_samples], RATE, [len(waveform)])
    return pool_tokens(grid, rate)


def test_a_part_is_cut_out_and_repeated_up_to_the_length_of_the_edit(editor, monkeypatch):
    other, part = OTHER[0], OTHER[0][16_000:24_000]
    prompts = [
        {"audio": OTHER},  # longer: its start
        {"audio": OTHER, "start": 1.0},  # as long
        {"audio": OTHER, "start": 1.0, "end": 1.5, "adapter": 1, "time_pooling": 16},
        {"end": 0.5},  # of the recording itself
    ]
    read = tokens_read(editor, monkeypatch, audio_prompts=prompts)
    expected = [
        tokens_of(editor, other[:32_000]),
        tokens_of(editor, other[16_000:]),
        tokens_of(editor, part.repeat(4), 16),
        tokens_of(editor, TUNE[0][:8_000].repeat(4)),
    ]
    assert read[2].shape[1] == 1  # one token for the whole window: the sound of the part
    for tokens, wanted in zip(read, expected, strict=True):
        assert torch.equal(tokens, wanted)


def test_each_window_reads_its_place_in_time(editor, monkeypatch):
    """A recording of three seconds has a second window; a prompt as long is read there too, and a short one goes on."""
    backbone, audio = editor.backbone, noise(4.0, 3)
    read, predict = [], backbone.predict
    monkeypatch.setattr(backbone, "predict", lambda *a: read.append(a[-1]) or predict(*a))
    prompts = [{"audio": OTHER}, {"audio": noise(4.0, 4), "adapter": 1}]
    edit(editor, audio, guidance_scale=1.0, num_inference_steps=1, audio_prompts=prompts)
    start = (round(4.0 * RATE / backbone.hop_samples) - backbone.window_frames) * backbone.hop_samples
    repeated = torch.cat([OTHER[0], OTHER[0][:16_000]])
    for tokens, waveform in zip(read[-1], (repeated, noise(4.0, 4)[0]), strict=True):
        torch.testing.assert_close(tokens[-1:], tokens_of(editor, waveform[start:]))


def test_another_sample_rate_and_a_file_are_the_same_sound(editor, tmp_path, monkeypatch):
    time = torch.arange(3 * 48_000) / 48_000
    high = 0.2 * torch.sin(2 * torch.pi * 440 * time)
    soundfile.write(tmp_path / "high.wav", high.numpy(), 48_000, subtype="FLOAT")
    low = 0.2 * torch.sin(2 * torch.pi * 440 * torch.arange(3 * RATE) / RATE)
    sounds = tmp_path / "high.wav", str(tmp_path / "high.wav"), (low, RATE), (high, RATE)
    first, second, same, lower = (
        tokens_read(editor, monkeypatch, audio_prompts=[{"audio": sound}])[0] for sound in sounds
    )
    assert torch.equal(first, second)
    assert (first - same).norm() < 0.2 * (first - lower).norm()


def test_each_recording_is_loaded_and_encoded_once(editor, tmp_path, monkeypatch):
    from apa_lightning.editing import source

    for name, (waveform, rate) in (("tune.wav", TUNE), ("other.wav", OTHER)):
        soundfile.write(tmp_path / name, waveform.numpy(), rate, subtype="FLOAT")
    loaded, encoded, load, encode = [], [], source.load_audio, editor.audio_encoder.forward
    monkeypatch.setattr(source, "load_audio", lambda path, **o: loaded.append(path) or load(path, **o))
    monkeypatch.setattr(editor.audio_encoder, "forward", lambda *a: encoded.append(1) or encode(*a))
    prompts = [{}, {"audio": str(tmp_path / "other.wav")}, {"audio": tmp_path / "other.wav", "time_pooling": 8}]
    edit(editor, tmp_path / "tune.wav", audio_prompts=[*prompts, {"audio": tmp_path / "tune.wav", "adapter": 1}])
    assert len(loaded) == 2 and len(encoded) == 2


def test_edits_with_different_prompts_are_as_alone(editor):
    knobs = {"num_inference_steps": 2, "ap_scale": 0.8}
    of_each = [
        None,
        [{"audio": OTHER}],
        [{"audio": noise(1.0, 5), "start": 0.5}],  # in the batch of the one before
        [{"audio": OTHER, "ap_scale": 0.3}],
        [{"audio": OTHER, "adapter": 1, "time_pooling": 16}, {}],
    ]
    requests = [
        EditRequest(audio=TUNE if i % 2 else noise(2.5, 9), prompt="x", seed=i, audio_prompts=prompts, **knobs)
        for i, prompts in enumerate(of_each)
    ]
    keys = [editor.filled(request).batch_key for request in requests]
    assert keys[1] == keys[2] != keys[3]
    results = editor.edit(requests, batch_size=5, progress=False)
    for request, result in zip(requests, results, strict=True):
        torch.testing.assert_close(result.waveform, editor.edit(request, progress=False).waveform, atol=1e-5, rtol=0)


def test_the_recording_decides_length_level_and_region(editor):
    region = edit(editor, audio_prompts=[{"audio": noise(9.0, 6)}], region=(0.5, 1.0), strength=0.9)
    assert torch.equal(region[:7_000], TUNE[0][:7_000]) and len(region) == len(TUNE[0])


def test_two_guidance_scales_count_the_scales_of_the_prompts():
    def branches(**settings) -> int:
        return len(EditDefaults().fill(EditSettings(audio_guidance_scale=2.0, **settings)).guidance)

    assert branches(ap_scale=0.0) == 1
    assert branches(ap_scale=0.0, audio_prompts=[{}, {"ap_scale": 0.5}]) == 2
    assert branches(audio_prompts=[{"ap_scale": 0.0}]) == 1
    assert branches(audio_prompts=[{"ap_scale": 0.0}], ap_scale_end=1.0) == 1
    assert branches(audio_prompts=[{"ap_scale": 0.0, "ap_scale_end": 1.0}]) == 2


def test_the_record_has_plain_values(editor):
    request = EditRequest(audio=TUNE, prompt="x", audio_prompts=[{"audio": OTHER, "ap_scale": {"up": 1}}, {}])
    assert request.settings()["audio_prompts"] == [{"audio": "(array)", "ap_scale": {"up": 1}}, {"audio": None}]
    assert EditRequest(audio=TUNE, prompt="x").settings()["audio_prompts"] is None


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], r"^audio_prompts: \[\]; give a list of one or more"),
        ({"audio": "a.wav"}, r"^audio_prompts: \{.*give a list"),
        (["a.wav"], r"^audio_prompts\[0\]: 'a.wav'; give a list"),
        (
            [{}, {"alpha": 1}],
            r"^audio_prompts\[1\].alpha: is unknown; choose from audio, adapter, ap_scale, ap_scale_end",
        ),
        ([{1: 2}], r"^audio_prompts\[0\].1: is unknown"),
        ([{"audio": 3}], r"^audio_prompts\[0\].audio: 3; give a file"),
        ([{"audio": "gone.wav"}], r"^audio_prompts\[0\].audio: gone.wav: no such audio file"),
        ([{"audio": (torch.zeros(RATE), RATE)}], r"^audio_prompts\[0\].audio: audio: is digital silence"),
        ([{"adapter": 2}], r"^audio_prompts\[0\].adapter: 2 is not loaded; choose from 0 \(untrained\), 1 \(timbre\)"),
        ([{"adapter": "melody"}], r"^audio_prompts\[0\].adapter: 'melody' is not loaded; choose from 0"),
        ([{"adapter": -1}], r"^audio_prompts\[0\].adapter: -1; give the number"),
        ([{"ap_scale": float("nan")}], r"^audio_prompts\[0\].ap_scale: nan; give a finite number"),
        ([{"ap_scale": [0.5, 0.5]}], r"^audio_prompts\[0\].ap_scale: \[0.5, 0.5\]; give a finite number"),
        ([{"ap_scale_end": {"attic": 1}}], r"^audio_prompts\[0\].ap_scale_end: no adapted layer in 'attic'"),
        ([{"ap_scale": {"attic": 1}}], r"^audio_prompts\[0\].ap_scale: no adapted layer in 'attic'"),
        ([{}, {"time_pooling": 3}], r"^audio_prompts\[1\].time_pooling: 3; choose one of 1, 2, 4, 8, 16: "),
        ([{"freq_pooling": 0}], r"^audio_prompts\[0\].freq_pooling: 0; choose one of"),
        ([{"start": 2.5}], r"^audio_prompts\[0\].start: 2.5 to 2 s lies outside audio, which lasts 2.00 s"),
        ([{"audio": OTHER, "end": 3.1}], r"^audio_prompts\[0\].end: 0 to 3.1 s lies outside audio, which lasts 3.00 s"),
        ([{"start": 1.0, "end": 0.5}], r"^audio_prompts\[0\].end: 0.5 s is not after the start at 1 s"),
        (
            [{"start": 1.0, "end": 1.1}],
            r"^audio_prompts\[0\].start: 1 to 1.1 s of audio is too short; give at least 0.25",
        ),
        ([{"start": -1}], r"^audio_prompts\[0\].start: -1; give seconds"),
        ([{"end": "1"}], r"^audio_prompts\[0\].end: '1'; give seconds"),
    ],
)
def test_bad_prompts_are_refused_before_anything_is_computed(editor, prompts, message, monkeypatch):
    monkeypatch.setattr(editor, "_edit_batch", lambda *a: pytest.fail("an edit was started"))
    with pytest.raises((InputError, FileNotFoundError), match=message):
        edit(editor, audio_prompts=prompts)


def test_a_name_of_two_adapters_is_not_guessed(editor):
    both = AudioEditor(editor.backbone, editor.audio_encoder, [editor.adapters[0], editor.adapters[0]])
    with pytest.raises(InputError, match=r"adapter: 'untrained' is the name of several; choose a number from 0"):
        edit(both, audio_prompts=[{"adapter": "untrained"}])


def test_adapters_of_different_conventions_cannot_be_used_together(editor, tmp_path):
    files = [tmp_path / "melody.safetensors", tmp_path / "timbre.safetensors"]
    for file, layers in zip(files, ("last", "mean_last_three"), strict=True):
        editor.adapters[0].save(file, loa_layers=layers)
    with pytest.raises(
        InputError, match="adapter: timbre was trained with loa_layers mean_last_three, the first one with"
    ):
        AudioEditor.from_pretrained(**tiny_parts(64), adapter=files)
    assert AudioEditor.from_pretrained(**tiny_parts(64), adapter=files[0]).adapters[0].name == "melody"
