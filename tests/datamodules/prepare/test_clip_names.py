"""Names of clips, as the common downloaders write them."""

from pathlib import Path

import pytest

from datamodules.prepare.audioset_files import Segment
from datamodules.prepare.clip_names import match_clips

ID = "-0RWZT_miFs"  # a dash first, as in every tenth list
SEGMENT = Segment(ID, 30.0, 40.0, ("m",))


def names(folder: Path, segments: list[Segment], *files: str) -> list[tuple[str, str]]:
    """(file name, or why there is none; status) of each segment."""
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True, parents=True)
        (folder / file).touch()
    return [(clip.path.name if clip.path else clip.detail, clip.status) for clip in match_clips(segments, folder)]


@pytest.mark.parametrize(
    "name",
    [
        f"{ID}.wav",  # yt-dlp -o "%(id)s.%(ext)s"; agkphysics/AudioSet (flac)
        f"{ID}_30.wav", f"{ID}_30.0.flac", f"{ID}_30.000.ogg",  # unixpickle/audioset, audioset-processing
        f"{ID}_30.000_40.000.WAV", f"{ID}_30_40.wav",  # PANNs' black list, OpenSound
        f"{ID}_30000.mp3", f"sub/{ID}_30000_40000.flac",  # the strong labels' segment_id, audiosetdl
        f"id_{ID}.wav",  # Fast-Audioset-Download
        f"Music/{ID}_30.0-40.0.ogg",  # audioset-download
        f"Y{ID}.wav", f"Y{ID}_30000.wav",  # PANNs, AudioCaps, WavCaps, GoogleAudioSetScripts
        f"{ID}_000030.flac",  # VGGSound
        f"v{ID}_30_40.wav", f"v{ID}_30_40_out.wav",  # Download_VGGSound
        f"{ID}-30-40.wav",  # rafaelgreca/audioset-downloader
        f"[{ID}]-[30-40].wav",  # keunwoochoi/audioset-downloader
        f"{ID}.p0.mp3",  # zhaoyanpeng/audioset-dl
        f"{ID}_30s.wav",  # PANNs' example
        f"{ID}_start_30_end_40.wav", f"{ID}_30_10.wav", f"{ID}_0030.00.wav", f"{ID} 30.0-40.0.wav",
        f"A song (live, 1999) [{ID}].opus", f"A song-{ID}.mp3",  # the default names of yt-dlp and youtube-dl
        f"cutvalid_{ID}_Reverberation, Music, Piano, Inside, small room.wav",  # the published AP-Adapter
        f"00017_{ID}_30.wav", f"audio_{ID}.wav", f"unbalanced_Y{ID}.wav", f"バイオリン_{ID}_音.wav",
    ],
)  # fmt: skip
def test_names_that_are_found(tmp_path: Path, name: str) -> None:
    assert names(tmp_path, [SEGMENT], name) == [(Path(name).name, "found")]


@pytest.mark.parametrize(
    "name",
    [
        f"{ID}_31.wav", f"{ID}_3.wav", f"{ID}_30_41.wav", f"{ID}_0_30_40.wav", f"{ID}_30_1.wav", f"{ID}_30_31.wav",
        f"{ID}_chunk_3.wav",
    ],
)  # fmt: skip
def test_other_times_are_named_and_not_taken(tmp_path: Path, name: str) -> None:
    assert names(tmp_path, [SEGMENT], name) == [(f"'{name}' is there, but its name holds other times", "missing")]


@pytest.mark.parametrize(
    "name",
    [f"{ID.swapcase()}.wav", f"{ID}30.wav", f"x{ID}.wav", f"id{ID}.wav", f"{ID[:-1]}.wav", f"._{ID}.wav", f"{ID}.json",
     f"{ID}.info.json", f"{ID}.m4a.part", f"{ID}.npy"],
)  # fmt: skip
def test_other_names_are_not_taken(tmp_path: Path, name: str) -> None:
    assert names(tmp_path, [SEGMENT], name) == [("no such file", "missing")]


@pytest.mark.parametrize(
    "name",
    [f"id_{ID}.m4a", f"{ID}_30.000.webm", f"v{ID}_30_40_out.mkv", f"{ID}_000030.mp4", f"{ID}.f251.webm", ID,
     f"{ID}_30.000.wav.gz", f"{ID}_30.000"],
)  # fmt: skip
def test_a_right_name_in_another_format_is_to_be_converted(tmp_path: Path, name: str) -> None:
    assert names(tmp_path, [SEGMENT], name) == [(name, "convert")]
    assert "convert it to FLAC or WAV" in match_clips([SEGMENT], tmp_path)[0].detail
    assert names(tmp_path, [SEGMENT], f"{ID}.wav") == [(f"{ID}.wav", "found")]  # a format that is read comes first


def test_short_ids_are_whole_words_at_the_start(tmp_path: Path) -> None:
    segment = Segment("v", 30.0, 40.0, ("m",))
    assert names(tmp_path, [segment], "V_30.wav", "v30.wav", "my v.wav", "id_v.wav") == [("no such file", "missing")]
    assert names(tmp_path, [segment], "v_30.wav") == [("v_30.wav", "found")]


def test_seconds_come_before_milliseconds_and_doubt_is_said(tmp_path: Path) -> None:
    early, late = Segment("v", 30.0, 40.0, ("m",)), Segment("v", 30_000.0, 30_010.0, ("m",))
    (why, _), second = names(tmp_path, [early, late], "v_30000.wav")
    assert "fits several segments" in why and second == ("v_30000.wav", "found")
    assert [name for name, _ in names(tmp_path, [early, late], "v_30.wav")] == ["v_30.wav", "v_30000.wav"]
    two = [Segment("w", 0.0, 10.0, ("m",)), Segment("w", 10.0, 20.0, ("m",))]
    assert {status for _, status in names(tmp_path, two, "w.wav")} == {"missing"}
    assert names(tmp_path, two, "w_10.wav")[1] == ("w_10.wav", "found")


def test_a_video_id_may_end_like_a_start(tmp_path: Path) -> None:
    segments = [Segment("ab_30", 5.0, 15.0, ("m",)), Segment("ab", 12.0, 20.0, ("m",))]
    (first, _), (second, _) = names(tmp_path, segments, "ab_30.wav", "ab_30_5.wav")
    assert first == "ab_30_5.wav" and second == "no such file"


def test_of_two_names_with_other_words_none_is_taken(tmp_path: Path) -> None:
    ((why, status),) = names(tmp_path, [SEGMENT], f"{ID}_30_vocals.wav", f"{ID}_30_drums.wav")
    assert why == f"'{ID}_30_drums.wav' and '{ID}_30_vocals.wav' both fit; keep one of them" and status == "missing"
    assert names(tmp_path, [SEGMENT], f"{ID}_30.wav") == [(f"{ID}_30.wav", "found")]


def test_a_start_between_seconds_is_also_found_cut_to_a_whole_one(tmp_path: Path) -> None:
    segments = [Segment(ID, 1.5, 11.5, ("m",)), Segment(ID, 12.25, 22.25, ("m",))]
    assert [name for name, _ in names(tmp_path, segments, f"[{ID}]-[1-11].wav", f"{ID}_12250_22250.flac")] == [
        f"[{ID}]-[1-11].wav", f"{ID}_12250_22250.flac",
    ]  # fmt: skip
