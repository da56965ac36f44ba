#!/usr/bin/env bash
# A note that sounds while its channel changes its program keeps its sound on a synthesizer. pretty_midi and
# miditoolkit assign it to the new instrument, because they look when the note ends; symusic assigns it to the old
# one. In music where the change comes during the release, the last note of each phrase is counted for the wrong
# instrument.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check \
        pretty_midi==0.2.11.post0 miditoolkit==1.0.1 symusic==0.6.0 mido==1.3.3 numpy==2.4.6 setuptools==80.9.0
} || exit 2
export NUMBA_CACHE_DIR="$folder/numba" OMP_NUM_THREADS=1

venv/bin/python - <<'EOF'
import sys
from importlib.metadata import version

import miditoolkit
import mido
import pretty_midi
import symusic

file = mido.MidiFile(ticks_per_beat=480)
track = mido.MidiTrack()
file.tracks.append(track)
track.append(mido.Message("program_change", program=40, time=0))  # violin
for note in (60, 62):
    track.append(mido.Message("note_on", note=note, velocity=80, time=0))
    if note == 62:  # the flute is chosen just before the violin's last note ends
        track.append(mido.Message("program_change", program=73, time=470))
    track.append(mido.Message("note_off", note=note, time=10 if note == 62 else 480))
track.append(mido.Message("note_on", note=64, velocity=80, time=0))
track.append(mido.Message("note_off", note=64, time=480))
file.save("phrase.mid")

instruments = {
    "pretty_midi": pretty_midi.PrettyMIDI("phrase.mid").instruments,
    "miditoolkit": miditoolkit.MidiFile("phrase.mid").instruments,
    "symusic": symusic.Score("phrase.mid").tracks,
}
print("Violin (40) plays 60 and 62, flute (73) plays 64; the change to 73 comes ten ticks before the end of 62.")
print("Expected: all readers assign 60 and 62 to the violin, as a synthesizer sounds them.")
found = {}
for name, parts in instruments.items():
    found[name] = {int(part.program): [note.pitch for note in part.notes] for part in parts}
    print(f"  {name} {version(name)}: {found[name]}")
late, early = {40: [60], 73: [62, 64]}, {40: [60, 62], 73: [64]}
as_described = found == {"pretty_midi": late, "miditoolkit": late, "symusic": early}
print("As described: two readers assign note 62 to the flute." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
