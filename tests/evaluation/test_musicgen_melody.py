"""MusicGen-Melody as an evaluated system: what it is told of a source."""

import torch
import transformers
from random_folders import tiny_musicgen

from apa_lightning.editing.source import Recording
from apa_lightning.evaluation.systems import MusicGenMelody

RATE = 32_000


def test_the_whole_source_is_told():
    """Also where the tokenizer's files hold a `max_length`, to which transformers' processor cuts the audio too."""
    system, music = (
        MusicGenMelody(str(tiny_musicgen())),
        torch.randn(6 * RATE, generator=torch.Generator().manual_seed(0)),
    )
    processor = transformers.MusicgenMelodyProcessor.from_pretrained(tiny_musicgen())
    assert processor.tokenizer.init_kwargs["max_length"] < 1000
    told = system.inputs(Recording.load((music, RATE), None), "jazz")
    whole = processor.feature_extractor(music.numpy(), sampling_rate=RATE, return_tensors="pt")["input_features"]
    assert told["input_features"].shape == (1, 47, 12)
    assert torch.equal(told["input_features"], whole) and told["input_ids"].shape[0] == 1


def test_rests_read_as_no_melody():
    """Also where they hold noise, whose loudest pitch class is drawn by chance and would be told as notes."""
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(3 * RATE) / RATE)
    system, rest = MusicGenMelody(str(tiny_musicgen())), torch.zeros(3 * RATE)
    noise = 1e-5 * torch.randn(len(tone) + len(rest), generator=torch.Generator().manual_seed(0))
    for music in (torch.cat([tone, rest]), torch.cat([tone, rest]) + noise, 0.01 * (torch.cat([tone, rest]) + noise)):
        told = system.inputs(Recording.load((music, RATE), None), "jazz")["input_features"][0]
        classes = told.argmax(dim=-1).tolist()
        assert set(classes[:5]) == {9} and set(classes[-4:]) == {0}  # A, and what the model takes for no source
        assert torch.equal(told.sum(dim=-1), torch.ones(len(told)))
