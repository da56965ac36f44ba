"""Recordings that libsndfile reads in part or not at all: lengths that a format does not tell, and several in one file."""

import io
import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile
import torch

from apa_lightning.audio import AudioError, load_audio, probe_audio

RATE, SECONDS = 22_050, 2.0
UNKNOWN = (0, 0x7F000000, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFDA, 0xFFFFFFFF)


def swell(rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Nearly silent, then loud noise: of a variable bit rate the first frames are the smallest."""
    samples = np.random.default_rng(0).normal(0, 1, (round(SECONDS * rate), channels))
    samples[: len(samples) // 2] *= 1e-3
    return (0.1 * samples).astype(np.float32)


def encoded(samples: np.ndarray, kind: str, rate: int = RATE, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, **options)
    return file.getvalue()


def mp3(rate: int = RATE, mode: str = "VARIABLE", channels: int = 1) -> bytes:
    return encoded(swell(rate, channels=channels), "MP3", rate, bitrate_mode=mode, compression_level=0.5)


def without_header(data: bytes) -> bytes:
    """The MP3 with its Xing or Info header turned into a frame of silence."""
    return data.replace(b"Xing", bytes(4), 1).replace(b"Info", bytes(4), 1)


def id3(body: bytes) -> bytes:
    return b"ID3\x04\0\0" + bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0)) + body


def ape(body: bytes) -> bytes:
    tag = struct.pack("<II", len(body), 0) + b"TITLE\0" + body
    return tag + b"APETAGEX" + struct.pack("<IIII", 2_000, len(tag) + 32, 1, 0) + bytes(8)


def check_windows(data: bytes) -> torch.Tensor:
    """The whole; its length is the one that was probed, and windows are parts of it."""
    whole, rate = load_audio(data)
    assert probe_audio(data).frames == whole.shape[1]
    for start in (700, whole.shape[1] // 2, whole.shape[1] - 50):
        part, _ = load_audio(data, start=start / rate, seconds=0.1)
        expected = whole[:, start : start + round(0.1 * rate)]
        assert part.shape == expected.shape
        assert (part - expected).abs().max() < 1e-5
    return whole


@pytest.mark.parametrize(
    ("rate", "mode", "channels"),
    [
        (8_000, "VARIABLE", 1),
        (11_025, "CONSTANT", 1),
        (16_000, "VARIABLE", 1),
        (22_050, "VARIABLE", 2),
        (24_000, "CONSTANT", 2),
        (32_000, "VARIABLE", 1),
        (44_100, "VARIABLE", 2),
        (48_000, "VARIABLE", 1),
    ],
)
def test_mp3_without_a_header_is_whole(rate, mode, channels):
    data = mp3(rate, mode, channels)
    bare = without_header(data)
    assert bare != data
    if (mode, channels) == ("VARIABLE", 1):
        assert soundfile.info(io.BytesIO(bare)).frames < 0.9 * SECONDS * rate, "libsndfile's estimate has become right"
    whole, expected = check_windows(bare), check_windows(data)
    length = expected.shape[1]
    assert length == round(SECONDS * rate)
    spare = whole.shape[1] - length
    assert 0 <= spare <= 4 * 1_152  # the silent frame, and the encoder's delay and padding
    shift = min(
        range(spare + 1), key=lambda s: (whole[:, s + rate :][:, :64] - expected[:, rate : rate + 64]).abs().max()
    )
    assert torch.allclose(whole[:, shift : shift + length], expected, atol=1e-5)
    assert whole[:, :shift].abs().max() < 0.01


@pytest.mark.parametrize(
    "around",
    [
        (id3(b"\xff\xfb\x90\0" * 500), b""),
        (b"", b"TAG".ljust(128)),
        (b"", ape(b"x" * 5_000)),
        (b"", bytes(5_000)),
        (b"", bytes(range(256)) * 20),
        (b"half a frame" * 30, b""),
        (id3(b"one") + id3(b"two"), ape(b"y" * 300) + b"TAG".ljust(128)),
    ],
    ids=["id3v2", "id3v1", "ape", "zeros", "garbage", "garbage first", "several"],
)
@pytest.mark.parametrize("header", [True, False])
def test_tags_and_garbage_do_not_count(around, header, tmp_path, capfd):
    data = mp3() if header else without_header(mp3())
    path = tmp_path / "a.mp3"
    path.write_bytes(around[0] + data + around[1])
    assert probe_audio(path).frames == probe_audio(data).frames
    waveform, _ = load_audio(path)
    assert torch.allclose(waveform, load_audio(data)[0], atol=1e-6)
    assert capfd.readouterr().err == ""  # mpg123 warns there of sizes that differ


def test_joined_mp3_files_are_all_read():
    first, second = mp3(), encoded(swell()[::-1], "MP3")
    parts = [load_audio(part)[0] for part in (first, second)]
    for between in (b"", id3(b"title" * 100), b"TAG".ljust(128) + id3(b"x"), ape(b"z" * 3_000)):
        assert torch.equal(check_windows(first + between + second), torch.cat(parts, dim=1))
    bare = load_audio(without_header(second))[0]
    assert torch.equal(load_audio(first + without_header(second))[0], torch.cat([parts[0], bare], dim=1))
    other_rate = mp3(16_000)
    assert load_audio(first + other_rate)[0].shape[1] == 2 * SECONDS * RATE


def test_a_truncated_mp3_is_found_by_its_header():
    data = mp3()
    with pytest.raises(AudioError, match=r"truncated: the header promises .* MPEG frames"):
        probe_audio(data[: len(data) // 2])
    assert abs(probe_audio(data[:-10]).seconds - SECONDS) < 0.06  # a decoder drops the last frame
    bare = without_header(data)[: len(data) // 2]
    assert 0.5 < load_audio(bare)[0].shape[1] / RATE < SECONDS  # no header promises more


def test_a_header_that_counts_itself_is_no_truncation():
    data = bytearray(mp3())
    at = data.index(b"Xing") + 8
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 1).to_bytes(4, "big")
    assert abs(load_audio(bytes(data))[0].shape[1] - SECONDS * RATE) <= 1_152


def tool(*command: str, given: bytes | None = None) -> bytes:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, input=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout


@pytest.mark.parametrize(
    "command",
    [
        "lame --quiet -t -V4 IN -",
        "lame --quiet -t -b 64 --resample 16 IN -",
        "lame --quiet -t -m m -V6 IN -",
        "lame --quiet -p -t -V4 IN -",
        "lame --quiet -t --freeformat -b 320 IN -",
        "lame --quiet -t -V4 --add-id3v2 --tt title IN -",
        "sox IN -t mp3 -",
        "sox - -t wav - pad 0",
        "sox - -t flac -",
        "sox - -t aiff - pad 0",
        "sox - -t au - pad 0",
        "flac -s -c -",
        "ffmpeg -i IN -q:a 4 -f mp3 -",
        "ffmpeg -i IN -c:a mp2 -f mp2 -",
        "ffmpeg -i IN -f flac -",
        "ffmpeg -i IN -f wav -",
        "ffmpeg -i IN -f wav -c:a libmp3lame -q:a 4 -",
        "ffmpeg -i IN -f wav -rf64 always -",
        "ffmpeg -i IN -f w64 -",
        "ffmpeg -i IN -f aiff -",
        "ffmpeg -i IN -f caf -",
        "ffmpeg -i IN -f au -",
        "ffmpeg -i IN -f ogg -c:a flac -",
        "ffmpeg -i IN -f ogg -c:a libopus -ar 48000 -",
    ],
)
def test_what_tools_write_to_a_pipe(command, tmp_path):
    source = encoded(swell(44_100, channels=2), "WAV", 44_100)
    path = tmp_path / "in.wav"
    path.write_bytes(source)
    words = [str(path) if word == "IN" else word for word in command.split()]
    if words[:2] == ["sox", "-"]:
        words[1:2] = ["-t", "wav", "-"]
    waveform, rate = load_audio(tool(*words, given=source))
    assert 0 <= waveform.shape[1] / rate - SECONDS < 0.12
    assert waveform[:, : rate // 2].square().mean() * 100 < waveform[:, -rate : -rate // 2].square().mean()


# --- FLAC, WAV and other files of unknown length ------------------------------------------------------------------------


def test_flac_of_unknown_length():
    data = encoded(swell(channels=2), "FLAC")
    unknown = data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]
    assert torch.equal(check_windows(unknown), load_audio(data)[0])
    assert torch.equal(load_audio(id3(b"title") + unknown)[0], load_audio(data)[0])
    cut = load_audio(unknown[: len(unknown) // 2])[0]
    assert cut.shape[1] > 10_000
    assert torch.equal(cut[:, :-4_096], load_audio(data)[0][:, : cut.shape[1] - 4_096])


def with_length(kind: str, length: int) -> bytes:
    """A file that says it has so many bytes of audio, and really has those of `swell`."""
    data = bytearray(encoded(swell(), kind))
    at, size, order = {
        "WAV": (data.find(b"data") + 4, 4, "little"),
        "WAVEX": (data.find(b"data") + 4, 4, "little"),
        "RF64": (28, 8, "little"),
        "AU": (8, 4, "big"),
        "AIFF": (data.find(b"SSND") + 4, 4, "big"),
        "CAF": (data.find(b"data") + 4, 8, "big"),
        "W64": (data.find(b"data") + 16, 8, "little"),
    }[kind]
    if length == 0xFFFFFFFF and size == 8:
        length = (1 << 64) - 1
    data[at : at + size] = length.to_bytes(size, order)
    return bytes(data)


@pytest.mark.parametrize("length", UNKNOWN, ids=hex)
@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "AU", "AIFF", "CAF", "W64"])
def test_a_file_of_unknown_length_is_read_to_its_end(kind, length):
    data = with_length(kind, length)
    expected = load_audio(encoded(swell(), kind))[0]
    assert torch.equal(check_windows(data), expected)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "AU", "AIFF", "CAF", "W64"])
def test_a_file_that_is_shorter_than_its_header_says_is_truncated(kind):
    data = encoded(swell(), kind)
    with pytest.raises(AudioError, match="truncated: the header promises"):
        probe_audio(data[: len(data) // 2])


def test_bw64_is_read():
    data = encoded(swell(), "RF64")
    assert torch.equal(check_windows(b"BW64" + data[4:]), load_audio(data)[0])


@pytest.mark.parametrize("text", [b"five5", b"even"])
def test_chunks_around_the_audio(text):
    data = encoded(swell(), "WAV")
    at = data.index(b"data")
    chunk = b"note" + struct.pack("<I", len(text)) + text + bytes(len(text) % 2)
    for changed in (data[:at] + chunk + data[at:], data + chunk):
        assert torch.equal(load_audio(changed)[0], load_audio(data)[0])
    unknown = data[:at] + chunk + b"data" + bytes(4) + data[at + 8 :]
    assert torch.equal(load_audio(unknown)[0], load_audio(data)[0])
    with pytest.raises(AudioError, match="no audio"):
        load_audio(data[:at] + b"data" + bytes(4) + chunk)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "FLAC"])
def test_a_tag_in_front_takes_nothing_from_the_end(kind):
    data = encoded(swell(), kind)
    assert torch.equal(check_windows(id3(b"picture" * 1_000) + data), load_audio(data)[0])


# --- Ogg ----------------------------------------------------------------------------------------------------------------


def ogg_flac(flac: bytes, serial: int) -> bytes:
    """FLAC in Ogg, one packet on a page."""
    packets = [b"\x7fFLAC\x01\x00\x00\x01" + flac[:42]]
    packets += [flac[i : i + 40_000] for i in range(42, len(flac), 40_000)]
    stream = b""
    for number, packet in enumerate(packets):
        lacing = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
        kind = 2 if number == 0 else 4 if number == len(packets) - 1 else 0
        page = struct.pack("<4sBBqIIIB", b"OggS", 0, kind, number, serial, number, 0, len(lacing))
        stream += page + lacing + packet
    return stream


def links() -> dict[str, bytes]:
    samples, rates = swell(48_000, channels=2), {"VORBIS": 44_100, "OPUS": 48_000}
    made = {kind.lower(): encoded(samples, "OGG", rate, subtype=kind) for kind, rate in rates.items()}
    return made | {"flac": ogg_flac(encoded(samples, "FLAC", 48_000), 7)}


@pytest.mark.parametrize("kind", ["vorbis", "opus", "flac"])
def test_chained_ogg_is_read_whole(kind):
    link = links()[kind]
    single = check_windows(link)
    second = link.index(b"OggS", 4)
    empty = b"" if kind == "flac" else link[: link.index(b"OggS", second + 4)]  # both header pages
    for chain in (link + link, empty + link + b"junk" * 20 + link + empty + link):
        count = chain.count(link)
        assert torch.equal(check_windows(chain), torch.cat([single] * count, dim=1))


def test_chained_ogg_of_several_kinds():
    """The rate and channels are those of the first."""
    made = links()
    mono = encoded(swell(), "OGG", subtype="VORBIS")
    info = probe_audio(made["opus"] + made["vorbis"] + made["flac"] + mono)
    assert (info.sample_rate, info.channels) == (48_000, 2)
    waveform, _ = load_audio(made["opus"] + made["vorbis"] + made["flac"] + mono)
    lengths = [load_audio(one)[0].shape[1] / load_audio(one)[1] for one in (*made.values(), mono)]
    assert waveform.shape[0] == 2
    assert waveform.shape[1] == info.frames == pytest.approx(48_000 * sum(lengths), abs=4)
    tail, rate = load_audio(made["opus"] + mono, start=lengths[1] + 1.0, seconds=0.5)
    assert tail.shape == (2, rate // 2)
    assert torch.equal(tail[0], tail[1])


def test_ogg_flac_of_unknown_length():
    flac = encoded(swell(), "FLAC")
    unknown = flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]
    assert torch.equal(check_windows(ogg_flac(unknown, 1)), load_audio(flac)[0])


def test_a_window_in_a_later_mono_recording_can_be_changed_in_place():
    data = encoded(swell(channels=2), "OGG") + encoded(swell(), "OGG")
    window, _ = load_audio(data, start=SECONDS + 0.1, seconds=0.5)
    assert len(window) == 2 and torch.equal(window[0], window[1])
    window.clamp_(-0.1, 0.1)
