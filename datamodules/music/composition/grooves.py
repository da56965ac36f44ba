"""The eight genres as data: tempo, swing, harmony, drum patterns, basses, comping and leads.

Drum patterns have 16 steps to the bar: `X` accented, `x` normal, `o` soft, `.` nothing.
"""

from dataclasses import dataclass

DRUMS = {
    "kick": 36, "snare": 38, "rim": 37, "clap": 39, "hat": 42, "open": 46, "pedal": 44, "ride": 51, "bell": 53,
    "crash": 49, "tom1": 50, "tom2": 47, "tom3": 43, "tambourine": 54, "cowbell": 56, "shaker": 70,
}  # fmt: skip


@dataclass(frozen=True)
class Comp:
    """A chordal part.

    Attributes:
        programs: General MIDI programs to choose from. hits: (position, length) in quarters of a bar, several to choose from.
        voicing: "close" (three or four notes near middle C), "power" (root, fifth, octave), "high" or "shell".
        level: decibels in the mix. drive: distortion. strum: seconds between strings.
    """

    programs: tuple[int, ...]
    hits: tuple[tuple[tuple[float, float], ...], ...]
    voicing: str = "close"
    level: float = -5.0
    drive: float = 0.0
    strum: float = 0.0


@dataclass(frozen=True)
class Genre:
    """One genre; times in quarters, 4/4 throughout.

    Attributes:
        name: as in the paper's prompts. label: AudioSet's display name.
        swing: place of the off-beat in `swing_unit` quarters, smallest and largest.
        progressions: chords as (degree, bars) rows. sevenths, dominant: see `theory.chord`.
        drums: grooves to choose from; kit: General MIDI drum kit.
        bass: a figure of `genres`; leads: General MIDI programs of the melody; densities: its rhythms.
        levels: decibels of lead, bass and drums.
    """

    name: str
    label: str
    tempo: tuple[float, float]
    modes: dict[str, float]
    progressions: tuple[tuple[tuple[int, float], ...], ...]
    drums: tuple[dict[str, str], ...]
    bass: tuple[str, ...]
    bass_programs: tuple[int, ...]
    comps: tuple[tuple[Comp, ...], ...]
    leads: tuple[int, ...]
    densities: dict[str, float]
    swing: tuple[float, float] = (0.5, 0.5)
    swing_unit: float = 1.0
    sevenths: bool = False
    kit: int = 0
    fills: tuple[dict[str, str], ...] = (
        {"snare": "............xxxX", "kick": "............x..."},
        {"tom1": "........xx......", "tom2": "..........xx....", "tom3": "............xxX."},
        {"snare": "............x.xx", "tom3": ".............x.X"},
    )
    lead_drive: float = 0.0
    levels: tuple[float, float, float] = (0.0, -1.0, 0.0)
    lead_tonic: int = 60
    crash: bool = True


# Bars of bass: (position, length, chord tone; 100 is the root an octave up). "walking" and "follow" are played by `genres`.
BASS_FIGURES: dict[str, tuple[tuple[tuple[float, float, int], ...], ...]] = {
    "reggae": (
        ((0, 0.8, 0), (1, 0.4, 0), (1.5, 0.4, 2), (2.5, 0.4, 0), (3, 0.8, 1)),
        ((0.5, 0.4, 0), (1, 0.9, 0), (2.5, 0.4, 2), (3, 0.4, 1), (3.5, 0.4, 0)),
        ((0, 1.4, 0), (1.5, 0.4, 0), (2, 0.4, 1), (2.5, 0.9, 2)),
    ),
    "eighths": (
        tuple((i / 2, 0.42, 0) for i in range(8)),
        tuple((i / 2, 0.42, 0 if i < 6 else 2) for i in range(8)),
        ((0, 0.9, 0), (1, 0.4, 0), (1.5, 0.4, 0), (2, 0.9, 0), (3, 0.4, 2), (3.5, 0.4, 0)),
    ),
    "pop": (
        ((0, 1.4, 0), (1.5, 0.4, 0), (2, 1.4, 0), (3.5, 0.4, 2)),
        ((0, 0.7, 0), (0.75, 0.7, 0), (1.5, 0.9, 0), (2.5, 0.4, 0), (3, 0.9, 2)),
    ),
    "sub": (
        ((0, 1.2, 0), (2.5, 1.2, 0)),
        ((0, 0.7, 0), (0.75, 0.6, 0), (2.5, 0.7, 2), (3.25, 0.7, 0)),
        ((0, 2.2, 0), (2.5, 0.4, 0), (3, 0.8, 2)),
    ),
    "octaves": (
        tuple((i / 2, 0.4, 0 if i % 2 == 0 else 100) for i in range(8)),
        tuple((beat + at, 0.22, tone) for beat in range(4) for at, tone in ((0, 0), (0.5, 100), (0.75, 100))),
    ),
    "root fifth": (((0, 0.9, 0), (2, 0.9, 2)), ((0, 0.9, 0), (2, 0.9, 2), (3.5, 0.4, 1))),
}

_EIGHTHS = tuple((i / 2, 0.4) for i in range(8))
_ALL = tuple((float(i), 0.9) for i in range(4))


def _rows(text: str) -> tuple[tuple[tuple[int, float], ...], ...]:
    """Progressions from text: "0 6 3:2 | 0 4" is two of them, scale steps with their bars (1 where none are given)."""
    return tuple(
        tuple((int(step.split(":")[0]), float(step.partition(":")[2] or 1)) for step in row.split())
        for row in text.split("|")
    )


GENRES: dict[str, Genre] = {
    g.name: g
    for g in (
        Genre(
            "jazz", "Jazz", (118, 216), {"major": 3, "minor": 2, "dorian": 1, "blues": 1},
            _rows("1 4 0:2 | 0 5 1 4 | 1:0.5 4:0.5 0 | 0:2 3 4"),
            (
                {"ride": "x...X.x.x...X.x.", "pedal": "....x.......x...", "kick": "o.......o.....o."},
                {"ride": "x...X.xox...X.x.", "pedal": "....x.......x...", "snare": "......o.......o.", "kick": "o...o...o...o..."},
                {"hat": "x...X.x.x...X.x.", "kick": "o...o...o...o...", "rim": "............o..."},
            ),
            ("walking",), (32, 32, 35),
            (
                (Comp((0, 0, 4), (((0, 0.5), (1.5, 0.5)), ((0.5, 0.4), (2.5, 0.9)), ((1.5, 0.4), (3.5, 0.4)), ((0, 1.5),)), "shell"),),
                (Comp((26,), (_ALL,), "shell", -9.0, strum=0.012),),
            ),
            (66, 56, 11, 26, 65, 0), {"lively": 2, "syncopated": 3}, (0.6, 0.67), sevenths=True, kit=32, levels=(1.0, -1.0, -5.0),
            fills=({"snare": "........x.x.x.xx"}, {"snare": "..........xoxoX."}), crash=False, lead_tonic=62,
        ),
        Genre(
            "reggae", "Reggae", (66, 88), {"minor": 2, "dorian": 1, "major": 2, "mixolydian": 1},
            _rows("0 3 | 0 4 | 0 6 | 0 3 0 4 | 0 5 3 4"),
            (
                {"kick": "........X.......", "rim": "........X.......", "hat": "x.o.x.o.x.o.x.o."},
                {"kick": "........X.......", "snare": "........X.......", "hat": "x.xox.xox.xox.xo", "rim": "......o........o"},
                {"kick": "X...X...X...X...", "rim": "....x.......x..o", "hat": "x.x.x.x.x.x.x.x."},
            ),
            ("reggae",), (33, 33, 38),
            (
                (Comp((27, 28), (((0.5, 0.2), (1.5, 0.2), (2.5, 0.2), (3.5, 0.2)),), "high", -4.0, strum=0.006),
                 Comp((16, 17), (((0.5, 0.2), (0.75, 0.15), (1.5, 0.2), (1.75, 0.15), (2.5, 0.2), (2.75, 0.15), (3.5, 0.2), (3.75, 0.15)),),
                      "close", -11.0)),
                (Comp((0,), (((0.5, 0.25), (1.5, 0.25), (2.5, 0.25), (3.5, 0.25)),), "high", -4.0),),
            ),
            (22, 57, 73, 18, 66), {"syncopated": 2, "calm": 1, "plain": 1}, (0.5, 0.6), 0.5, levels=(-1.0, 1.0, -1.0),
            fills=({"tom1": "............xx..", "tom2": "..............xX"}, {"rim": "..........x.xx.X"}),
        ),
        Genre(
            "rock", "Rock music", (104, 156), {"mixolydian": 2, "minor": 2, "major": 2, "minor pentatonic": 1},
            _rows("0 6 3 0 | 0 4 5 3 | 0:2 3 4 | 0 5 6 0"),
            (
                {"kick": "X.......X.x.....", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
                {"kick": "X.....x.X.......", "snare": "....X.......X...", "ride": "x.x.x.x.x.x.x.x."},
                {"kick": "X..x....X.x..x..", "snare": "....X.......X...", "open": "x...x...x...x..."},
            ),
            ("eighths",), (33, 34),
            (
                (Comp((29,), (_EIGHTHS, ((0, 1.4), (1.5, 0.4), (2, 1.4), (3.5, 0.4)), ((0, 0.9), (1, 0.4), (1.5, 0.9), (2.5, 1.4))),
                      "power", -4.0, 1.5, 0.008),),
                (Comp((29,), (((0, 1.9), (2, 1.9)),), "power", -4.0, 1.5, 0.012), Comp((27,), (_EIGHTHS,), "high", -11.0, strum=0.01)),
            ),
            (29, 30, 29, 18), {"plain": 2, "lively": 2, "syncopated": 2}, lead_drive=1.5, lead_tonic=64,
        ),
        Genre(
            "metal", "Heavy metal", (128, 190), {"phrygian": 3, "minor": 3},
            _rows("0:2 1 0 | 0 5 6 0 | 0:2 5 6 | 0:3 1 | 0 1 2 1"),
            (
                {"kick": "XxxxXxxxXxxxXxxx", "snare": "....X.......X...", "crash": "x...............", "ride": "x...x...x...x..."},
                {"kick": "X.xxX.xxX.xxX.xx", "snare": "....X.......X...", "hat": "x...x...x...x..."},
                {"kick": "X.x.X.x.X.x.X.x.", "snare": ".x.x.x.x.x.x.x.x", "ride": "x.x.x.x.x.x.x.x."},
                {"kick": "X..X..X...X..x..", "snare": "........X.......", "open": "x...x...x...x..."},
            ),
            ("follow",), (34, 33),
            ((Comp((30,), (
                tuple((b + o, 0.2) for b in range(4) for o in (0.0, 0.5, 0.75)),
                tuple((i / 4, 0.18) for i in range(16)),
                ((0, 0.2), (0.5, 0.2), (0.75, 0.2), (1.25, 0.2), (1.5, 0.9), (2.5, 0.2), (2.75, 0.2), (3, 0.9)),
            ), "low power", -2.0, 4.0),
              Comp((30,), (((0, 3.9),), ((0, 1.9), (2, 1.9))), "power", -9.0, 4.0)),),
            (30, 29), {"running": 2, "lively": 2, "calm": 1}, lead_drive=3.0, levels=(-1.0, -3.0, 1.0), lead_tonic=64,
            fills=({"snare": "........xxxxXXXX", "kick": "........x.x.x.x."},
                   {"tom1": "........xxxx....", "tom2": "............xx..", "tom3": "..............XX", "kick": "XxxxXxxxXxxxXxxx"}),
        ),
        Genre(
            "pop", "Pop music", (92, 128), {"major": 4, "minor": 1, "major pentatonic": 1},
            _rows("0 4 5 3 | 5 3 0 4 | 0 5 3 4 | 3 4 5 0"),
            (
                {"kick": "X.....x.X.......", "snare": "....X.......X...", "clap": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."},
                {"kick": "X..x..x.X..x....", "clap": "....X.......X...", "hat": "xoxoxoxoxoxoxoxo", "shaker": "o.o.o.o.o.o.o.o."},
                {"kick": "X...X...X...X...", "clap": "....X.......X...", "hat": "..x...x...x...x.", "tambourine": "..o...o...o...o."},
            ),
            ("pop", "eighths"), (33, 38, 39),
            (
                (Comp((0, 4), (_ALL, ((0, 1.4), (1.5, 1.4), (3, 0.9)), ((0, 0.9), (1, 0.4), (1.5, 0.9), (2.5, 0.4), (3, 0.9)))),
                 Comp((89, 90, 50), (((0, 4.0),),), "high", -10.0)),
                (Comp((25, 27), (((0, 0.9), (1, 0.4), (1.5, 0.4), (2.5, 0.4), (3, 0.4), (3.5, 0.4)),), "close", -5.0, strum=0.012),
                 Comp((89, 48), (((0, 4.0),),), "high", -11.0)),
                (Comp((81, 80), (tuple((t, 0.35) for t in (0, 0.75, 1.5, 2.25, 3, 3.5)),), "high", -10.0),
                 Comp((50, 89), (((0, 4.0),),), "close", -8.0)),
            ),
            (81, 53, 80, 87, 0, 54), {"plain": 2, "syncopated": 3, "calm": 1}, lead_tonic=64,
        ),
        Genre(
            "hip-hop", "Hip hop music", (78, 98), {"minor": 3, "dorian": 2, "minor pentatonic": 1, "phrygian": 0.5},
            _rows("0:2 5:2 | 0 3 | 0 6 | 0:2 | 0 2 5 4"),
            (
                {"kick": "X.....x...X.....", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
                {"kick": "X..x......X..x..", "snare": "....X..o.o..X...", "hat": "x.xox.xox.xox.xo"},
                {"kick": "X......x..X.....", "clap": "....X.......X...", "hat": "xxxxxoxxxxxxxoxx", "open": "..............x."},
                {"kick": "X.x.......Xx....", "snare": "....X.......X..o", "hat": "x.x.x.x.x.x.x.x.", "shaker": "oooooooooooooooo"},
            ),
            ("sub",), (38, 39, 33),
            (
                (Comp((4, 5), (((0, 1.9), (2.5, 1.2)), ((0, 3.5),), ((0, 0.6), (0.75, 1.5))), "shell", -6.0),),
                (Comp((48, 49, 50), (((0, 4.0),),), "high", -9.0), Comp((0, 11), (((0, 0.4), (1.75, 0.4), (2.5, 0.4)),), "close", -7.0)),
            ),
            (11, 73, 4, 108, 80, 0), {"syncopated": 2, "plain": 1, "calm": 2}, (0.52, 0.62), 0.5, sevenths=True, kit=25,
            fills=({"snare": "............o.xX"}, {"hat": "............xxxx", "kick": "..............x."}),
            levels=(-3.0, 1.0, 0.0), crash=False,
        ),
        Genre(
            "disco", "Disco", (110, 128), {"minor": 3, "dorian": 3, "major": 1},
            _rows("0 3 | 0:2 3 4 | 0 5 3 4 | 0 6 5 4 | 0:2 6:2"),
            (
                {"kick": "X...X...X...X...", "snare": "....X.......X...", "hat": "x...x...x...x...", "open": "..X...X...X...X."},
                {"kick": "X...X...X...X...", "clap": "....X.......X...", "hat": "xx.xxx.xxx.xxx.x", "open": "..X...X...X...X."},
                {"kick": "X...X...X...X...", "snare": "....X.......X..o", "open": "..X...X...X...X.", "cowbell": "x..x..x.x..x..x.",
                 "tambourine": "oooooooooooooooo"},
            ),
            ("octaves",), (33, 36, 38),
            (
                (Comp((27, 28), (tuple((i / 4, 0.15) for i in (0, 2, 3, 5, 6, 8, 10, 11, 13, 14)),
                       tuple((i / 4, 0.15) for i in (2, 3, 6, 7, 10, 11, 14, 15))),
                      "high", -7.0, strum=0.005),
                 Comp((48, 49), (((0, 3.9),), ((0, 1.4), (1.5, 2.4))), "high", -9.0)),
                (Comp((7, 4), (((0, 0.3), (0.75, 0.3), (1.5, 0.3), (2.5, 0.3), (3.25, 0.3)),), "close", -7.0),
                 Comp((61,), (((0, 0.3), (1.5, 0.3)), ((2.5, 0.3), (3, 0.8)), ((3.5, 0.4),)), "high", -8.0)),
            ),
            (48, 48, 61, 73, 81), {"lively": 2, "syncopated": 2, "calm": 1}, sevenths=True, lead_tonic=67,
        ),
        Genre(
            "country", "Country", (96, 148), {"major": 3, "major pentatonic": 3, "mixolydian": 1},
            _rows("0:2 3 0 | 0 3 4 0 | 0:2 4:2 | 3 0 4 0 | 0 4 0 4"),
            (
                {"kick": "X.......X.......", "snare": "xoxoXoxoxoxoXoxo"},
                {"kick": "X.......X.......", "rim": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
                {"kick": "X.......X.....x.", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
            ),
            ("root fifth",), (32, 33),
            (
                (Comp((25,), (((1, 0.7), (1.5, 0.3), (3, 0.7), (3.5, 0.3)), ((1, 0.6), (3, 0.6))), "close", -4.0, strum=0.014),),
                (Comp((25,), (((1, 0.7), (3, 0.7)),), "close", -5.0, strum=0.014), Comp((105,), (), "roll", -6.0)),
            ),
            (40, 25, 105, 22, 27), {"lively": 3, "plain": 2}, (0.5, 0.6), crash=False, lead_tonic=64,
            fills=({"snare": "............xxxX"}, {"snare": "........xoxoxoxX"}),
        ),
    )
}  # fmt: skip
