"""The LOA generator: the same computation as diffusers', a loss that falls, a written part that loads."""

import lightning as L
import pytest
import torch
from diffusers import AudioLDM2Pipeline, AudioLDM2ProjectionModel
from lightning.pytorch.callbacks import ModelCheckpoint
from pocket_tools import batch, pocket_folder, tones
from torch.utils.data import DataLoader
from transformers import GPT2LMHeadModel

from apa_lightning import AudioMAE, InputError
from apa_lightning.pocket.measures.loa import measure
from apa_lightning.pocket.parts.loa import PocketLOA, match_moments, own_and_others, token_cosine, true_loa
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.pocket.text.prompt_streams import PromptEncoder, generate

PROMPTS = ["a recording of a violin solo", "jazz", "", "Duet, played with cello accompaniment"]


def copied(folder, target):
    """A folder of one's own that shares the frozen parts."""
    target.mkdir()
    for part in ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2", "audio_encoder"):
        (target / part).symlink_to(folder / part)
    return target


def pipeline(projection, language_model, prompts: PromptEncoder) -> AudioLDM2Pipeline:
    """diffusers' pipeline with what encodes text alone."""
    return AudioLDM2Pipeline(
        vae=None,
        text_encoder=prompts.clap,
        text_encoder_2=prompts.t5,
        projection_model=projection,
        language_model=language_model,
        tokenizer=prompts.tokenizer,
        tokenizer_2=prompts.tokenizer_2,
        feature_extractor=None,
        unet=None,
        scheduler=None,
        vocoder=None,
    )


@pytest.fixture(scope="module")
def prompts() -> PromptEncoder:
    return PromptEncoder(pocket_folder())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A short fit: its folder, the module, the trainer."""
    root = tmp_path_factory.mktemp("loa")
    module = PocketLOA(copied(pocket_folder(), root / "model"), learning_rate=5e-3, warmup_steps=2)
    return root / "model", module, fit(module, root, 12)


def fit(module: PocketLOA, root, steps: int, **options) -> L.Trainer:
    trainer = L.Trainer(
        max_steps=steps,
        val_check_interval=6,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        accelerator="cpu",
        default_root_dir=root,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(root / "checkpoints", save_last=True, save_top_k=-1, every_n_train_steps=6)],
    )
    items = tones(8)
    trainer.fit(
        module, DataLoader(items, batch_size=4, collate_fn=batch), DataLoader(items, 4, collate_fn=batch), **options
    )
    return trainer


@torch.no_grad()
def test_training_generates_what_diffusers_generates(prompts, fitted):
    folder, module, _ = fitted
    projection = AudioLDM2ProjectionModel.from_pretrained(folder / "projection_model", torch_dtype=torch.float32)
    language_model = GPT2LMHeadModel.from_pretrained(folder / "language_model", dtype=torch.float32)
    pipe = pipeline(projection, language_model, prompts)
    together = generate(projection, language_model, prompts(PROMPTS))
    for row, prompt in zip(together, PROMPTS, strict=True):
        alone = pipe.encode_prompt([prompt], "cpu", 1, do_classifier_free_guidance=False)[2]
        torch.testing.assert_close(row, alone[0], rtol=0, atol=2e-5)
    padded = pipe.encode_prompt(PROMPTS, "cpu", 1, do_classifier_free_guidance=False)[2]
    gap = torch.ones(len(PROMPTS), dtype=torch.bool)
    torch.testing.assert_close(generate(projection, language_model, prompts(PROMPTS), gap), padded, rtol=0, atol=2e-5)
    assert (padded[1] - together[1]).abs().max() > 1e-3  # the gap matters
    assert not module.language_model.training  # no dropout
    # What is written is the trained generator, in half precision.
    trained = generate(module.projection, module.language_model, prompts(PROMPTS))
    torch.testing.assert_close(together, trained, rtol=0, atol=2e-2)


def test_gradients_reach_the_first_token_through_the_last(prompts):
    module = PocketLOA(pocket_folder())
    encoded = prompts(PROMPTS)
    last = generate(module.projection, module.language_model, encoded)[:, -1]
    (last * torch.randn(last.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    unused = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused
    first = module.language_model.transformer.wpe.weight.grad.abs().sum(dim=1)
    longest = encoded.mask.shape[1] + 5
    assert (first[:longest] > 0).all() and first[longest + 7 :].sum() == 0


def test_the_loss_falls_and_the_parts_are_written(fitted):
    folder, module, trainer = fitted
    start = PocketLOA(folder)
    prompts, target = start._encoded(batch(tones(8)))

    @torch.no_grad()
    def loss(m: PocketLOA) -> float:
        return float(torch.nn.functional.mse_loss(generate(m.projection, m.language_model, prompts), target))

    fresh = loss(start)
    match_moments(start.language_model.transformer.ln_f, target)
    assert loss(module) < 0.7 * loss(start) < 0.35 * fresh
    assert {p.name for p in folder.iterdir() if not p.is_symlink()} == {"projection_model", "language_model"}
    assert {"val/loss", "val/cosine", "val/cosine_centred", "val/cosine_centred_shuffled"} <= set(
        trainer.callback_metrics
    )


def test_a_checkpoint_holds_no_frozen_part_and_resumes_exactly(fitted, tmp_path):
    folder, module, _ = fitted
    saved = torch.load(folder.parent / "checkpoints" / "last.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in saved["state_dict"]} == {"projection", "language_model"}
    halfway = next(path for path in (folder.parent / "checkpoints").glob("*step=6*"))
    resumed = PocketLOA(copied(pocket_folder(), tmp_path / "model"), learning_rate=5e-3, warmup_steps=2)
    fit(resumed, tmp_path, 12, ckpt_path=halfway)
    for (name, one), other in zip(module.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_the_true_loa_is_the_grid_pooled_to_eight_stretches():
    encoder = AudioMAE.from_pretrained(pocket_folder() / "audio_encoder")
    waveform = batch(tones(2))["waveform"]
    grid = encoder(waveform)
    assert grid.shape == (2, 32, 8, 160)
    block = grid[1, 4:8].flatten(0, 1)
    torch.testing.assert_close(true_loa(encoder(waveform))[1, 1], (block.mean(dim=0) + block.amax(dim=0)) / 2)


def test_similarities():
    draw = torch.Generator().manual_seed(0)
    first = torch.randn(3, 8, 5, generator=draw)
    own, others = own_and_others(token_cosine(first, 2 * first))
    torch.testing.assert_close(own, torch.ones(3))
    expected = torch.nn.functional.cosine_similarity(first[:1], first[1:], dim=-1).mean()
    torch.testing.assert_close(others[0], expected)


def test_measure(fitted, tmp_path):
    folder, _, _ = fitted
    items = batch(tones(8))
    clips = Clips(items["waveform"], items["key"], items["prompt"], items["labels"], items["metadata"])
    figures = measure(Subject(folder, clips, pictures=tmp_path))
    assert figures == measure(Subject(folder, clips))
    cosine, gain, centred, centred_gain = figures
    assert cosine.low <= cosine.value <= cosine.high and cosine.value > cosine.untrained
    assert gain.value == pytest.approx(cosine.value - cosine.compared["shuffled captions"])
    assert centred_gain.value == pytest.approx(centred.value - centred.compared["shuffled captions"])
    assert [figure.reached for figure in figures][:3] == [None] * 3 and centred_gain.reached is not None
    assert (tmp_path / "loa.png").stat().st_size > 1000
    with pytest.raises(InputError, match=r"clips: 1; a caption is compared"):
        measure(Subject(folder, clips.take([0])))


def test_mistakes_are_named(tmp_path):
    with pytest.raises(InputError, match=r"padded: 1.5"):
        PocketLOA(pocket_folder(), padded=1.5)
    with pytest.raises(InputError, match=r"lacks audio_encoder.*configs/pocket/audio_mae.yaml"):
        PocketLOA(tmp_path)
    (tmp_path / "audio_encoder").symlink_to(pocket_folder() / "audio_encoder")
    with pytest.raises(InputError, match=r"lacks tokenizer, text_encoder, tokenizer_2.*clap.yaml.*text_encoder.yaml"):
        PocketLOA(tmp_path)
