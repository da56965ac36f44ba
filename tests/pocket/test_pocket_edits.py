"""The shipped U-Net, judge and adapter on embedded held-out clips: the quick part of the proof."""

import pytest
import torch

from apa_lightning import AudioEditor
from apa_lightning.pocket.instrument_judge import NAMES, InstrumentJudge
from apa_lightning.pocket.measures.unet import ablated, gap_losses, install_adapter
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.edit_trials import Trials, recorded_trials
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.utils.pretrained import packaged
from datamodules.audioset import AudioSetDataModule


@pytest.fixture(scope="module")
def solos() -> Clips:
    """The embedded validation solos of 5.12 s."""
    data = AudioSetDataModule(
        validation_shards="embedded", batch_size=40, num_workers=0, audio_length_in_s=5.12, sample_rate=16_000
    )
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    clips = Clips(batch["waveform"], batch["key"], batch["prompt"], batch["labels"], batch["metadata"])
    return clips.where(lambda fields: fields["kind"] == "solo" and fields["instrument"] in NAMES)


@pytest.fixture(scope="module")
def trials(solos) -> Trials:
    found = recorded_trials({i: fields["instrument"] for i, fields in enumerate(solos.metadata)}, 6)
    return Trials(solos, found, InstrumentJudge.from_pretrained(packaged()), seed=0)


@pytest.fixture(scope="module")
def editor() -> AudioEditor:
    return AudioEditor.from_pretrained()


def test_the_judge_names_instruments(solos):
    said = InstrumentJudge.from_pretrained(packaged()).names(solos.waveform)
    right = [name == fields["instrument"] for name, fields in zip(said, solos.metadata, strict=True)]
    assert sum(right) / len(right) > 0.8


def test_the_unet_listens(solos):
    """The gates of its training."""
    from diffusers import AudioLDM2UNet2DConditionModel

    unet = AudioLDM2UNet2DConditionModel.from_pretrained(packaged() / "unet", torch_dtype=torch.float32).eval()
    subject = Subject(packaged(), solos)
    losses = gap_losses(subject, [solos.take(range(16))], unet, install_adapter(subject, unet))
    assert losses["shuffled_omega_1"].mean() > 1.2 * losses["matched_omega_1"].mean()
    assert losses["shuffled_omega_2"].mean() > 1.1 * losses["matched_omega_2"].mean()
    assert losses["wrong_text"].mean() > 1.01 * losses["right_text"].mean()


def test_layers_of_the_unet_are_left_out_one_by_one(solos):
    scores = ablated(Subject(packaged(), solos), [solos.take(range(4))])
    assert [score.name.split()[-1].endswith(".attn2") for score in scores] == [True] * 7
    assert {score.clips for score in scores} == {4}
    assert max(score.low for score in scores) > 0.05  # one carries the tune


def test_an_edit_keeps_the_tune_and_text_alone_does_not(trials, editor):
    knobs = {"negative_prompt": ""}
    edited = trials.outcome(trials.edit(editor, **knobs))
    alone = trials.outcome(trials.edit(editor, **knobs, ap_scale=0.0))
    assert edited.pitch.mean() > 0.6 > 0.25 > alone.pitch.mean()
    assert edited.margin.mean() > 0.3 > 0.15 > alone.margin.mean()
    assert torch.tensor(edited.recognized).sum() >= 4  # of six; the instrument that it was is none of them
