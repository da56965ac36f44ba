"""The judge: it learns to tell instruments, is read back as it was written, and knows what it is not for."""

import lightning as L
import pytest
import torch
from pocket_tools import batch, pocket_folder, tones
from torch.utils.data import DataLoader

from apa_lightning import InputError
from apa_lightning.pocket.instrument_judge import NAMES, InstrumentJudge, judged_mel
from apa_lightning.pocket.parts.judge import PocketJudge, disguised, solos
from apa_lightning.utils.rng import generator_for


def through_nothing(module: PocketJudge) -> PocketJudge:
    """The random VAE of the tests would hide everything."""
    module._through_vae = lambda mel: mel
    return module


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("judge")
    for name in ("vae",):
        (root / name).symlink_to(pocket_folder() / name)
    clips = tones(48, seconds=0.64)
    module = through_nothing(PocketJudge(root, learning_rate=5e-3, warmup_steps=5))
    trainer = L.Trainer(
        max_steps=80,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=80,
    )
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0)).tolist()
    train = [clips[i] for i in order if int(clips[i]["metadata"]["melody"][5:]) % 3]
    held_out = [clip for clip in clips if int(clip["metadata"]["melody"][5:]) % 3 == 0]
    loaders = [DataLoader(rows, batch_size=16, collate_fn=batch) for rows in (train, held_out)]
    trainer.fit(module, *loaders)
    return root, module, trainer, held_out


def test_it_tells_instruments_on_melodies_of_its_own(trained):
    root, _, trainer, held_out = trained
    assert float(trainer.callback_metrics["val/accuracy"]) > 0.8
    judge = InstrumentJudge.from_pretrained(root)
    waveforms = torch.stack([clip["waveform"] for clip in held_out])
    said = judge.names(waveforms, batch_size=5)
    right = [one == clip["metadata"]["instrument"] for one, clip in zip(said, held_out, strict=True)]
    assert sum(right) / len(right) > 0.8
    assert judge.names(0.01 * waveforms) == said  # whatever the level


def test_it_is_read_back_as_it_was_written(trained):
    root, module, _, held_out = trained
    mel = judged_mel(torch.stack([clip["waveform"] for clip in held_out]))
    module.judge.eval()
    with torch.no_grad():
        torch.testing.assert_close(InstrumentJudge.from_pretrained(root)(mel), module.judge(mel), atol=0.05, rtol=0.05)


def test_only_solos_of_the_eight_count():
    items = tones(4)
    items[0]["metadata"]["kind"] = "duet"
    items[1]["metadata"]["instrument"] = "kazoo"
    mel, answers = solos(batch(items))
    assert answers.tolist() == [NAMES.index("flute"), NAMES.index("cello")]
    assert mel.shape == (2, 1, 512, 64)
    assert len(solos(batch(items[:2]))[0]) == 0


def test_a_disguise_changes_the_mel_and_keeps_its_floor():
    mel = judged_mel(torch.stack([clip["waveform"] for clip in tones(4)]))
    first, again, other = (disguised(mel, generator_for(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == mel.shape and first.min() >= -11.6 and not torch.equal(first, mel)


def test_a_folder_without_judge_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no judge.*configs/pocket/judge.yaml"):
        InstrumentJudge.from_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"lacks vae.*configs/pocket/vae.yaml"):
        PocketJudge(tmp_path)
