r"""Synthetic music: a composer, a sampler and a command that writes labeled shards.

The stages of a clip, one module each; every arrow is a plain value::

    theory, melody  ->  line           ->  instruments, accompany | genres, grooves  ->  clip      ->  render
    a tune              a performance      what players make of it                       labels        shards
                                           (events.Performance)                          and JSON
                                           -> soundfont, sampler, mix -> encode

- `melody.write` composes a tune in quarters: key, meter, phrases, harmony. `line.compose_line` performs it in seconds.
  Neither knows instruments: the same `Line` goes through `instruments.play` for any of the eight (moved by octaves into
  range), so one performance on several instruments is ground truth for timbre transfer (`render --renditions 8`).
- `accompany` adds a left hand or a second player; `genres` plays a band from the patterns in `grooves`.
- The composer's data (genres, instruments, kinds of pieces, rhythms) are YAML tables in `composition/tables/`.
- Chance comes from `random.Random` objects seeded with strings that name the clip; there is no global state.
- `render.render` is the command. The embedded data is made by::

    python -m apa_lightning render --out datamodules/embedded --seed 1 --clips 200 --validation 0.2 \
        --audio_format ogg-opus --clips_per_shard 32
"""
