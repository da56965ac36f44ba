"""Audio files: what is read, what is refused, and how it is written."""

import numpy as np
import pytest
import soundfile
import torch
from recordings import BROKEN, TONE, wav_bytes

from apa_lightning.audio import (
    AudioError,
    channels_cancel,
    fbank,
    find_audio,
    fit_length,
    load_audio,
    log_mel,
    probe_audio,
    resample,
    save_audio,
    to_mono,
)
from apa_lightning.utils.atomic_files import atomic_path

RATES = (8_000, 11_025, 22_050, 44_100, 48_000, 96_000)
SUBTYPES = [
    ("wav", "PCM_U8"),
    ("wav", "PCM_16"),
    ("wav", "PCM_24"),
    ("wav", "PCM_32"),
    ("wav", "FLOAT"),
    ("flac", "PCM_24"),
    ("ogg", "VORBIS"),
    ("mp3", None),
]
FORMATS = [(*form, rate) for form in SUBTYPES for rate in RATES if form[0] != "mp3" or rate <= 48_000]  # MP3 ends there


@pytest.mark.parametrize(("suffix", "subtype", "rate"), FORMATS)
def test_formats(tmp_path, suffix, subtype, rate):
    path = tmp_path / f"a.{suffix}"
    stereo = np.stack([TONE, -0.5 * TONE], axis=1)
    soundfile.write(path, stereo, rate, subtype=subtype)
    waveform, read_rate = load_audio(path)
    assert read_rate == rate
    assert waveform.shape[0] == 2
    assert waveform.dtype == torch.float32
    assert abs(waveform.shape[1] - len(TONE)) <= 2400  # MP3 pads
    assert 0.15 < waveform[0].square().mean().sqrt() < 0.25
    if suffix != "mp3":
        part, _ = load_audio(path, start=100 / rate, seconds=50 / rate)
        assert torch.equal(part, waveform[:, 100:150])


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_refused(tmp_path, kind):
    make, message = BROKEN[kind]
    content = make(tmp_path)
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=message) as error:
        load_audio(path)
    assert "broken.wav" in str(error.value)
    with pytest.raises(AudioError):
        load_audio(content)


def test_missing_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.wav"):
        probe_audio(tmp_path / "nothing.wav")
    with pytest.raises(AudioError, match="folder"):
        probe_audio(tmp_path)


def test_limits(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE, 16_000)
    with pytest.raises(AudioError, match=r"limit is 0\.5 s"):
        load_audio(path, max_seconds=0.5)
    with pytest.raises(AudioError, match="nothing is left"):
        load_audio(path, start=2.0)


def test_streamed_wav_of_unknown_length_is_read(tmp_path):
    content = bytearray(wav_bytes(tmp_path))
    content[40:44] = b"\xff\xff\xff\xff"
    waveform, _ = load_audio(bytes(content))
    assert waveform.shape[1] == len(TONE)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_save_round_trip(tmp_path, suffix):
    path = tmp_path / "deep" / f"a.{suffix}"
    save_audio(path, torch.from_numpy(TONE), 16_000)
    waveform, rate = load_audio(path)
    assert rate == 16_000
    assert waveform.shape == (1, len(TONE))
    if suffix != "ogg":
        assert (waveform[0] - torch.from_numpy(TONE)).abs().max() < 1e-4
    assert path.stat().st_mode & 0o044
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_save_refuses_nan_and_unknown_formats(tmp_path):
    with pytest.raises(AudioError, match="NaN"):
        save_audio(tmp_path / "a.wav", torch.tensor([0.0, float("nan")]), 16_000)
    with pytest.raises(AudioError, match="cannot write"):
        save_audio(tmp_path / "a.xyz", torch.zeros(4), 16_000)
    assert not list(tmp_path.iterdir())


def test_atomic_path_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_odd_sample_rates_need_no_large_filter():
    """torchaudio's own filter for 8001 -> 16000 Hz takes gigabytes."""
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(2 * 8_001) / 8_001)
    resampled = resample(tone, 8_001, 16_000)
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(32_000) / 16_000)
    assert len(resampled) == 32_000
    assert (resampled - expected)[500:-500].abs().max() < 1e-2


@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16])
def test_features_do_not_depend_on_the_precision_around(default):
    waveform = torch.from_numpy(TONE)[None]
    banks, mel = fbank(waveform), log_mel(waveform)
    torch.set_default_dtype(default)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(fbank(waveform), banks)
            assert torch.equal(log_mel(waveform), mel)
    finally:
        torch.set_default_dtype(torch.float32)


def test_fit_length():
    assert fit_length(torch.ones(3), 5).tolist() == [1, 1, 1, 0, 0]
    assert fit_length(torch.ones(3), 2).tolist() == [1, 1]


def test_channels_that_cancel_give_the_loudest_one():
    tone = torch.from_numpy(TONE)
    for stereo in (torch.stack([0.99 * tone, -tone]), torch.stack([0.95 * tone, -tone, 0 * tone])):
        assert channels_cancel(stereo)
        assert torch.equal(to_mono(stereo), -tone)
    for usual in (tone[None], torch.zeros(2, 100), torch.stack([tone, 0.2 * tone]), torch.stack([tone, -0.5 * tone])):
        assert not channels_cancel(usual)
        assert torch.equal(to_mono(usual), usual.mean(dim=0))


def test_samples_above_1_are_kept_in_wav_only(tmp_path):
    loud = 3 * torch.from_numpy(TONE)[None]
    loud[0, 0] = 1.5
    save_audio(tmp_path / "a.wav", loud, 16_000)
    assert torch.equal(load_audio(tmp_path / "a.wav")[0], loud)
    content = (tmp_path / "a.wav").read_bytes()
    at = content.index(b"PEAK") + 12
    assert content[at : at + 4] == bytes(4)  # no time of writing: the same edit gives the same bytes
    save_audio(tmp_path / "b.wav", loud / 2, 16_000)
    assert soundfile.info(tmp_path / "b.wav").subtype == "PCM_16"
    with pytest.raises(AudioError, match="FLAC cannot hold samples above 1"):
        save_audio(tmp_path / "a.flac", loud, 16_000)


def test_folders_tell_what_they_leave_out(tmp_path):
    names = ["b.WAV", "a.opus", "c.aif", "d.m4a", "e.M4A", "f.wma", "notes.txt", ".g.wav", "sub/h.flac", "out/i.wav"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    top = find_audio(tmp_path)
    assert [path.name for path in top.files] == ["a.opus", "b.WAV", "c.aif"] and top.deeper == 2
    assert top.left_out.startswith(
        "2 .m4a and 1 .wma not read: convert to FLAC or WAV, for example with `ffmpeg -i SONG.m4a"
    )
    deep = find_audio(tmp_path, recursive=True, leave_out=tmp_path / "out")
    assert [path.name for path in deep.files] == ["a.opus", "b.WAV", "c.aif", "h.flac"] and deep.deeper == 0
    assert find_audio(tmp_path / "sub").left_out == ""


def test_raw_samples_are_refused(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(1_000))
    with pytest.raises(AudioError, match="not a readable audio file"):
        probe_audio(tmp_path / "a.raw")


@pytest.mark.parametrize("shadow", ["._a.mp3", ".AppleDouble/a.mp3", "._"])
def test_shadow_files_of_macos_do_not_hide_an_mp3(tmp_path, monkeypatch, shadow):
    """libsndfile takes an MP3 without a tag next to such a file for Sound Designer II, and bytes where ``._`` is."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.mp3", TONE, 16_000)
    expected, _ = load_audio("a.mp3")
    data = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / shadow).parent.mkdir(exist_ok=True)
    (tmp_path / shadow).write_bytes(b"")
    for source in ("a.mp3", tmp_path / "a.mp3", data):
        assert probe_audio(source).frames == expected.shape[1]
        assert torch.equal(load_audio(source)[0], expected)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_windows_of_vorbis_lie_where_they_were_asked_for(tmp_path, rate):
    """A seek into the last page of a stream, here the last half, is a block late in libsndfile."""
    path = tmp_path / "a.ogg"
    soundfile.write(path, 0.3 * np.sin(np.arange(10 * rate) / 9), rate)
    whole, _ = load_audio(path)
    for first in range(rate // 3, 10 * rate - 100, rate // 3):
        for source in (path, path.read_bytes()):
            part, _ = load_audio(source, start=first / rate, seconds=100 / rate)
            torch.testing.assert_close(part, whole[:, first : first + 100], atol=1e-5, rtol=0)
    end, _ = load_audio(path, start=9.99)
    torch.testing.assert_close(end, whole[:, round(9.99 * rate) :], atol=1e-5, rtol=0)
