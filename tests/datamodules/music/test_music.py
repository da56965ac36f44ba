"""The composer: keys, meters, phrases, ranges, genres. No audio is made here (see test_music_render.py)."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from apa_lightning.pocket.text import prompts
from datamodules.music.clip import Recipe, compose, compose_prompt, has_prompt, plan
from datamodules.music.composition.accompany import accompany
from datamodules.music.composition.genres import compose_genre
from datamodules.music.composition.grooves import DRUMS, GENRES
from datamodules.music.composition.instruments import INSTRUMENTS, octave_shift, play
from datamodules.music.composition.line import compose_line
from datamodules.music.composition.melody import write
from datamodules.music.composition.theory import CADENCES, CELLS, METERS, MODES, Key, chord, harmonize

LINES = [compose_line(random.Random(f"line {number}"), 10.24) for number in range(120)]


@pytest.mark.parametrize("meter", METERS)
def test_rhythm_cells_fill_their_bar(meter):
    cells = [*CADENCES[meter], *(cell for kind in CELLS[meter].values() for cell in kind)]
    assert {round(sum(abs(length) for length in cell), 6) for cell in cells} == {METERS[meter].bar}


def test_chords_are_built_on_the_scale():
    assert chord(Key(0, "major"), 4, 0, 4, sevenths=True).pitches == (7, 11, 2, 5)
    assert chord(Key(9, "minor"), 4, 0, 4).pitches == (7, 11, 2)  # The leading tone of harmonic minor.
    assert chord(Key(9, "dorian"), 3, 0, 4).pitches == (5, 9, 0)


@pytest.mark.parametrize("mode", MODES)
def test_harmony_has_no_gaps_and_closes_on_the_tonic(mode):
    for seed in range(20):
        chords = harmonize(random.Random(seed), Key(2, mode), METERS["3/4"], [(4, "a", "half"), (4, "a", "full")])
        assert all(a.start + a.duration == pytest.approx(b.start) for a, b in pairwise(chords))
        assert chords[-1].degree == 0
        assert chords[-1].start + chords[-1].duration == pytest.approx(8 * 3)


@pytest.mark.parametrize("meter", METERS)
@pytest.mark.parametrize("bars", [2, 3, 4, 6, 8, 12, 16, 22, 24])
def test_melodies_keep_meter_and_phrases(meter, bars):
    tune = write(random.Random(bars), Key(7, "major"), METERS[meter], bars, {"plain": 1, "lively": 1, "syncopated": 1})
    assert tune.phrases[0].start == 0
    assert tune.phrases[-1].end == pytest.approx(tune.length) == pytest.approx(bars * METERS[meter].bar)
    assert all(a.end == b.start for a, b in pairwise(tune.phrases))
    assert all(a.start + a.duration <= b.start + 1e-6 for a, b in pairwise(tune.notes)), "notes overlap"
    assert tune.notes[-1].start + tune.notes[-1].duration <= tune.length + 1e-6
    for bar in range(bars):  # Every bar has notes of its own.
        assert any(bar * tune.meter.bar <= n.start < (bar + 1) * tune.meter.bar for n in tune.notes)


def test_sections_return():
    tune = write(random.Random(4), Key(0, "major"), METERS["4/4"], 16, {"plain": 1})
    starts = {}
    for phrase in tune.phrases:
        bar = [
            (n.start - phrase.start, n.duration, n.pitch)
            for n in tune.notes
            if phrase.start <= n.start < phrase.start + 4
        ]
        starts.setdefault(phrase.section, []).append(bar)
    assert len(starts["a"]) == 3
    assert all(bar == starts["a"][0] for bar in starts["a"])
    assert starts["b"][0] != starts["a"][0]


def test_melodies_are_musical():
    in_key, strong, steps, closes = [], [], [], []
    for tune in (line.melody for line in LINES):
        for note in tune.notes:
            above = (note.pitch - tune.key.tonic) % 12
            in_key.append(above in tune.key.scale)
            if tune.meter.strength(note.start) >= 2:
                strong.append(above in tune.chord_at(note.start).pitches)
        steps += [abs(a.pitch - b.pitch) for a, b in pairwise(tune.notes)]
        closes.append((tune.notes[-1].pitch - tune.key.tonic) % 12 == 0)
    assert sum(in_key) / len(in_key) > 0.95  # The rest are leading tones.
    assert sum(strong) / len(strong) > 0.75
    assert all(closes)
    assert sum(size <= 2 for size in steps) / len(steps) > 0.6
    assert sum(size > 12 for size in steps) / len(steps) < 0.01
    assert sum(size == 0 for size in steps) / len(steps) < 0.2


def test_lines_fill_the_clip():
    for line in LINES:
        assert 0 <= line.notes[0].start < 1.5
        assert all(a.start <= b.start for a, b in pairwise(line.notes))
        assert line.notes[-1].end > 5
        assert all(30 <= note.velocity <= 124 and note.duration > 0 for note in line.notes)
    assert len({line.character for line in LINES}) > 8
    assert len({line.melody.key.mode for line in LINES}) > 5
    assert {line.melody.meter.name for line in LINES} == set(METERS)
    inside = sum(line.clock.seconds(line.melody.length) <= 10.24 for line in LINES)
    assert 0.6 < inside / len(LINES) < 0.95, "most melodies, not all, end in the clip"


def test_velocities_follow_the_phrase():
    spread = [max(n.velocity for n in line.notes) - min(n.velocity for n in line.notes) for line in LINES]
    assert sum(spread) / len(spread) > 12


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_instruments_stay_in_range(name):
    instrument = INSTRUMENTS[name]
    for number, line in enumerate(LINES[:60]):
        for texture in instrument.textures:
            rng = random.Random(number)
            notes = play(rng, line, instrument, next(iter(instrument.programs)), texture)
            notes += accompany(rng, line, instrument, 10.24)
            assert all(instrument.range[0] <= note.pitch <= instrument.range[1] for note in notes)
            assert all(note.start >= 0 and note.duration > 0 and 1 <= note.velocity <= 127 for note in notes)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_one_performance_on_every_instrument(name):
    """Timbre transfer's ground truth: the same keys but for octaves, at the same times."""
    instrument = INSTRUMENTS[name]
    for line in LINES[:40]:
        shift = octave_shift(line, instrument)
        assert shift % 12 == 0
        played = play(random.Random(0), line, instrument, next(iter(instrument.programs)))
        for note in line.notes:
            near = [p for p in played if abs(p.start - note.start) < 0.02 or p.start <= note.start < p.end]
            assert note.pitch + shift in {p.pitch for p in near}


def test_marimba_rolls_and_bowed_strings_sing():
    long = next(line for line in LINES if any(n.duration > 1 for n in line.notes))
    rolled = max((play(random.Random(s), long, INSTRUMENTS["marimba"], 12) for s in range(4)), key=len)
    assert len(rolled) > 2 * len(long.notes)
    assert max(n.duration for n in rolled) <= max(n.duration for n in long.notes)
    bowed = play(random.Random(0), long, INSTRUMENTS["violin"], 40)
    assert any(n.vibrato and n.swell for n in bowed)


@pytest.mark.parametrize("name", GENRES)
def test_genres_have_their_band(name):
    genre = GENRES[name]
    for seed in range(6):
        line, performance = compose_genre(random.Random(seed), genre, 10.24)
        assert genre.tempo[0] <= line.clock.tempo <= genre.tempo[1]
        by_name = {track.name: track for track in performance.tracks}
        assert {"lead", "bass", "chords 1", "drums"} <= set(by_name)
        assert performance.lead.name == "lead"
        assert by_name["drums"].drums
        assert {n.pitch for n in by_name["drums"].notes} <= set(DRUMS.values())
        assert max(n.pitch for n in by_name["bass"].notes) <= 56
        for track in performance.tracks:
            assert all(0 <= n.start < 10.24 and n.duration > 0 and 1 <= n.velocity <= 127 for n in track.notes)


def _onsets(name: str, keys: tuple[int, ...]) -> Counter:
    """Share of these drums' strokes on each sixteenth of the bar."""
    found = Counter()
    for seed in range(12):
        line, performance = compose_genre(random.Random(seed), GENRES[name], 10.24)
        drums = next(track for track in performance.tracks if track.drums)
        grid = [line.clock.seconds(step / 4) for step in range(int(line.melody.length * 4))]
        for note in drums.notes:
            if note.pitch in keys:
                found[min(range(len(grid)), key=lambda step, at=note.start: abs(grid[step] - at)) % 16] += 1
    return found


def test_grooves_are_the_genres_own():
    kick, snare, hats = (36,), (37, 38, 39), (42, 46, 44)
    disco = _onsets("disco", kick)
    assert min(disco[step] for step in (0, 4, 8, 12)) > 5 * max(disco[step] for step in (2, 6, 10, 14)), (
        "four on the floor"
    )
    reggae = _onsets("reggae", kick)
    assert reggae[8] == max(reggae.values()), "one drop"
    for name in ("rock", "pop", "hip-hop"):
        back = _onsets(name, snare)
        assert {step for step, _ in back.most_common(2)} == {4, 12}, "backbeat"
    assert sum(_onsets("metal", kick).values()) > 2 * sum(_onsets("rock", kick).values()), "double kick"
    jazz = _onsets("jazz", (51, 42))
    assert jazz[4] > 0 < jazz[12]
    assert _onsets("jazz", hats)[4] > 0
    line, _ = compose_genre(random.Random(0), GENRES["jazz"], 10.24)
    late = (line.clock.seconds(0.5) - line.clock.seconds(0)) / (line.clock.seconds(1) - line.clock.seconds(0))
    assert 0.59 < late < 0.68, "swing"


def test_reggae_skanks_between_the_beats():
    line, performance = compose_genre(random.Random(1), replace(GENRES["reggae"], swing=(0.5, 0.5)), 10.24)
    chords = next(track for track in performance.tracks if track.name == "chords 1")
    quarter = 60 / line.clock.tempo
    phases = [((note.start - line.clock.start) / quarter) % 1 for note in chords.notes]
    assert all(abs(phase - 0.5) < 0.06 for phase in phases)


def test_clips_depend_on_their_number_alone():
    recipe = Recipe(seed=3)
    alone = compose(recipe, plan(recipe, "train", 11))
    for index in range(8):
        compose(recipe, plan(recipe, "train", index))
    assert compose(recipe, plan(recipe, "train", 11)) == alone
    assert compose(replace(recipe, seed=4), plan(recipe, "train", 11)) != alone


def test_plans_take_turns():
    recipe = Recipe(seed=0)
    plans = [plan(recipe, "train", index) for index in range(160)]
    assert Counter(p.kind for p in plans) == {"solo": 112, "duet": 16, "genre": 32}
    clips = [compose(recipe, p).metadata for p in plans]
    solos = Counter(c["instrument"] for c in clips if c["kind"] == "solo")
    assert set(solos.values()) == {14}
    assert set(solos) == set(INSTRUMENTS)
    assert Counter(c["genre"] for c in clips if c["kind"] == "genre") == {name: 4 for name in GENRES}
    assert all(c["instrument"] != c["accompaniment"] for c in clips if c["kind"] == "duet")
    assert [plan(Recipe(shares=(1, 0, 0)), "train", i).kind for i in range(5)] == ["solo"] * 5


def test_splits_share_no_melody():
    recipe = Recipe(seed=0)
    notes = {
        split: {str(compose(recipe, plan(recipe, split, index)).metadata["notes"]) for index in range(40)}
        for split in ("train", "validation")
    }
    assert not notes["train"] & notes["validation"]
    assert len(notes["train"]) == 40


def test_renditions_group_one_melody():
    recipe = Recipe(seed=1, shares=(1, 0, 0), renditions=4)
    groups: dict[str, list[dict]] = {}
    for index in range(32):
        metadata = compose(recipe, plan(recipe, "validation", index)).metadata
        groups.setdefault(metadata["melody"], []).append(metadata)
    assert len(groups) == 8
    for clips in groups.values():
        assert len({clip["instrument"] for clip in clips}) == 4
        assert len({str([n[:2] for n in clip["notes"]]) for clip in clips}) == 1
    assert {clips[0]["instrument"] for clips in groups.values()} == set(INSTRUMENTS)


@pytest.mark.parametrize(("kind", "shares"), [("solo", (1, 0, 0)), ("duet", (0, 1, 0)), ("genre", (0, 0, 1))])
def test_an_audio_prompt_plays_the_melody_of_its_clip_alone(kind, shares):
    recipe, other = Recipe(seed=5, shares=shares, prompts=1.0), 0
    for index in range(24):
        planned = plan(recipe, "train", index)
        clip, prompt = compose(recipe, planned), compose_prompt(recipe, planned)
        assert prompt == compose_prompt(recipe, planned) and prompt.seconds == clip.performance.seconds
        assert len(prompt.tracks) == 1
        heard = {(round(note.start, 1), note.pitch % 12) for note in prompt.lead.notes}
        wanted = {(round(start, 1), key % 12) for start, _, key, _ in clip.metadata["notes"]}
        assert len(wanted & heard) > 0.7 * len(wanted), (kind, index)  # grace notes delay a few
        other += (
            prompt.lead.program not in INSTRUMENTS.get(clip.metadata.get("instrument"), INSTRUMENTS["piano"]).programs
        )
    assert other == 24 if kind == "solo" else other > 12


@pytest.mark.parametrize("shares", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_an_audio_prompt_of_the_sound_plays_another_melody_on_the_same_instrument(shares):
    recipe = Recipe(seed=5, shares=shares, prompts=1.0, prompt_kind="sound")
    for index in range(16):
        planned = plan(recipe, "train", index)
        clip, prompt = compose(recipe, planned), compose_prompt(recipe, planned)
        if shares[2]:
            assert prompt.tracks != clip.performance.tracks and len(prompt.tracks) > 2
        else:
            assert prompt.lead.program == clip.performance.lead.program and len(prompt.tracks) == 1
        assert [note[2] for note in clip.metadata["notes"]] != [note.pitch for note in prompt.lead.notes]


def test_a_share_of_the_clips_has_an_audio_prompt():
    recipe = Recipe(seed=5, prompts=0.25)
    count = sum(has_prompt(recipe, plan(recipe, "train", index)) for index in range(400))
    assert 70 < count < 130
    assert not any(has_prompt(Recipe(seed=5), plan(recipe, "train", index)) for index in range(40))


@pytest.mark.parametrize("seconds", [1.0, 3.3, 30.0, 75.0])
def test_other_lengths(seconds):
    recipe = Recipe(seed=2, seconds=seconds)
    for index in range(25):
        clip = compose(recipe, plan(recipe, "train", index))
        assert clip.performance.seconds == seconds
        assert max(n.start for t in clip.performance.tracks for n in t.notes) < seconds
        assert max(n.end for t in clip.performance.tracks for n in t.notes) > 0.5 * seconds


def test_captions_say_what_sounds():
    recipe = Recipe(seed=4, shares=(2, 1, 1), captions=0.5)
    written: dict[str, list[bool]] = {"solo": [], "duet": [], "genre": []}
    for index in range(200):
        planned = plan(recipe, "train", index)
        metadata = compose(recipe, planned).metadata
        caption = metadata.get("caption")
        written[planned.kind].append(caption is not None)
        if caption is not None:
            names = [metadata[field] for field in ("genre", "instrument") if field in metadata][:1]
            if planned.kind == "duet":
                names = [metadata["accompaniment"]]
            assert names[0] in caption
    assert all(written["duet"]) and 0.3 < sum(written["solo"]) / len(written["solo"]) < 0.7
    assert 0.3 < sum(written["genre"]) / len(written["genre"]) < 0.7


def test_captions_leave_the_music_alone():
    with_words = Recipe(seed=4, captions=1.0)
    for index in range(10):
        clip = compose(Recipe(seed=4), plan(with_words, "train", index))
        assert compose(with_words, plan(with_words, "train", index)).performance == clip.performance


def test_prompts_and_music_know_the_same_names():
    assert {i.name: i.label for i in INSTRUMENTS.values()} == prompts.INSTRUMENTS
    assert {g.name: g.label for g in GENRES.values()} == prompts.GENRES
