"""The pocket AudioMAE: what it sees and predicts, what it writes, what is measured."""

import math
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from apa_lightning.conditioning.audio_mae import AudioMAE
from apa_lightning.errors import InputError
from apa_lightning.pocket.measures import audio_mae as measure_audio_mae
from apa_lightning.pocket.measures.audio_mae import measure, sounding_columns
from apa_lightning.pocket.note_loss import CLASSES, NoteHead, sounding
from apa_lightning.pocket.parts.audio_mae import PocketAudioMAE, random_order, reconstruction_losses
from apa_lightning.pocket.parts.label_loss import LABELS, label_loss
from apa_lightning.pocket.patch_decoder import DECODER, PatchDecoder, encode_visible, patches, unpatched
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.subject import Subject

INSTRUMENTS = {"flute": (1.0, 0.1), "organ": (1.0, 0.8, 0.6, 0.5, 0.4)}  # by their overtones
NOTE = 0.64


def melody(number: int, instrument: str) -> dict:
    """A clip of eight tones of 0.64 s on one of two instruments."""
    keys = [60 + (number * 5 + i * (2 + number % 3)) % 12 for i in range(8)]
    time = torch.arange(round(NOTE * 16_000)) / 16_000
    tones = [
        sum(
            a * torch.sin(2 * math.pi * 440 * 2 ** ((key - 69) / 12) * k * time)
            for k, a in enumerate(INSTRUMENTS[instrument], 1)
        )
        for key in keys
    ]
    notes = [[i * NOTE, (i + 1) * NOTE, key, 90] for i, key in enumerate(keys)]
    fields = {"kind": "solo", "texture": "melody", "instrument": instrument, "melody": f"tune {number}", "notes": notes}
    waveform = 0.2 * torch.cat(tones)
    row = {"key": f"{number}-{instrument}", "waveform": waveform, "num_samples": len(waveform), "metadata": fields}
    return row | {"labels": [instrument.capitalize()]}


def batch(items: list[dict]) -> dict:
    return {k: torch.stack([i[k] for i in items]) if k == "waveform" else [i[k] for i in items] for k in items[0]}


@pytest.fixture(scope="module")
def items() -> list[dict]:
    return [melody(number, instrument) for number in range(8) for instrument in INSTRUMENTS]


class Losses(L.Callback):
    def __init__(self):
        self.train, self.val = [], []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.train.append(float(trainer.callback_metrics["train/loss"]))

    def on_validation_end(self, trainer, module):
        self.val.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fit(module: PocketAudioMAE, folder, items: list[dict], steps: int, logger=False) -> Losses:
    losses = Losses()
    trainer = L.Trainer(
        max_steps=steps,
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        check_val_every_n_epoch=None,
        val_check_interval=steps // 2,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        callbacks=[losses],
        logger=logger,
    )
    trainer.fit(module, *(DataLoader(part, 4, collate_fn=batch) for part in (items, items[:4])))
    return losses


@pytest.fixture(scope="module")
def trained(tmp_path_factory, items) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("mae")
    module = PocketAudioMAE(folder=folder / "model", learning_rate=2e-3, warmup_steps=4)
    logger = TensorBoardLogger(folder)
    losses = fit(module, folder, items, 24, logger)
    return SimpleNamespace(module=module.eval(), folder=folder / "model", losses=losses, logs=logger.log_dir)


# --- what it sees and predicts --------------------------------------------------------------------------------------


def test_with_every_patch_visible_the_encoder_computes_what_it_computes_later(items):
    module = PocketAudioMAE().eval()
    banks = module.banks(batch(items[:2]))
    assert banks.shape == (2, 1, 512, 128)
    everything = torch.arange(256).expand(2, -1)
    with torch.no_grad():
        assert torch.equal(encode_visible(module.encoder, banks, everything), module.encoder.forward_features(banks))


def test_hidden_patches_are_not_seen(items):
    module = PocketAudioMAE().eval()
    banks = module.banks(batch(items[:2]))
    order = random_order(banks, module.grid, torch.Generator().manual_seed(1))
    with torch.no_grad():
        predicted, target, masked, _ = module(banks, order)
        assert masked.sum(dim=1).tolist() == [205, 205]
        hidden = unpatched(masked[..., None].expand(-1, -1, 256).float(), module.grid)[:, None]
        other, *_ = module(torch.where(hidden > 0, torch.randn_like(banks), banks), order)
    assert predicted.shape == target.shape == (2, 256, 256)
    assert torch.equal(predicted, other)


def test_patches_are_those_of_the_encoder(items):
    module = PocketAudioMAE()
    banks = module.banks(batch(items[:2]))
    values = patches(banks, 16)
    embedding = module.encoder.patch_embed.proj
    expected = values @ embedding.weight.flatten(1).T + embedding.bias
    assert torch.allclose(module.encoder.patch_embed(banks), expected, atol=1e-4)
    assert torch.equal(unpatched(values, module.grid), banks[:, 0])


def test_loss_of_hidden_and_of_seen_patches():
    target = torch.zeros(1, 3, 2)
    predicted = torch.tensor([[[1.0, 3.0], [2.0, 2.0], [0.0, 0.0]]])
    hidden, seen = reconstruction_losses(predicted, target, torch.tensor([[False, True, True]]))
    assert (hidden.item(), seen.item()) == (2.0, 5.0)


def test_label_loss_counts_clips_with_known_labels():
    logits = torch.full((2, len(LABELS)), -20.0)
    logits[0, LABELS.index("Flute")] = 20
    assert label_loss(logits, [["Flute"], ["Siren"]]).item() == pytest.approx(0, abs=1e-6)
    assert label_loss(logits, [["Organ", "Music"], ["Siren"]]).item() == pytest.approx(40 / len(LABELS), rel=1e-4)
    assert label_loss(logits, [["Siren"], []]).item() == 0
    several = torch.cat([logits[:1], torch.full((1, 1), -20.0)], dim=1)
    assert label_loss(several, [["Flute", "Music"]]).item() == pytest.approx(0, abs=1e-6)
    assert label_loss(several, [["Flute", "Organ"]]).item() == pytest.approx(40 / (len(LABELS) + 1), rel=1e-4)


def test_sounding_shares_of_columns():
    shares = sounding([[0.0, 1.0, 60, 90], [1.0, 1.25, 71, 90], [1.5, 3.0, 74, 90]], start=0.5, seconds=2.0, columns=4)
    expected = torch.zeros(4, CLASSES)
    expected[0, 0] = 1.0  # 0.5 to 1.0 s: middle C
    expected[1, 11], expected[1, -1] = 0.5, 0.5  # to 1.5 s: a B for a quarter of a second
    expected[2:, 2] = 1.0
    assert torch.allclose(shares, expected, atol=1e-5)
    assert sounding([], 0.0, 1.0, 2)[:, -1].tolist() == [1, 1]


def test_note_loss_wants_the_notes_of_each_column_from_every_pooled_token():
    grid, target = torch.zeros(1, 8, 8, 4), torch.zeros(1, 8, CLASSES)
    target[:, :, 3] = 1
    head = NoteHead(4)
    for layer in head.heads:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    assert head.loss(grid, target).item() == pytest.approx(math.log(CLASSES), rel=1e-5)
    for layer in head.heads:
        layer.bias.data.view(-1, CLASSES)[:, 3] = 30
    assert head.loss(grid, target).item() == pytest.approx(0, abs=1e-5)
    assert head.loss(grid, target.roll(1, dims=1) * 0 + target.roll(1, dims=2)).item() == pytest.approx(30, rel=1e-3)


def test_notes_are_learned_from_the_audio_prompt(items, tmp_path):
    """The target plays other notes than the metadata say, the audio prompt plays them: the loss falls all the same."""
    silent = torch.zeros_like(items[0]["waveform"])
    paired = [
        {**item, "waveform": silent, "prompt_waveform": item["waveform"], "prompt_num_samples": item["num_samples"]}
        for item in items[:2]
    ]
    rows = {
        name: torch.stack([item[name] for item in paired]) if "waveform" in name else [item[name] for item in paired]
        for name in paired[0]
    } | {"start": [0.0] * 2}
    module = PocketAudioMAE(folder=tmp_path, note_weight=1.0, learning_rate=2e-3)
    optimizer, found = torch.optim.AdamW(module.parameters(), 2e-3), []
    for _ in range(8):
        losses = {"loss": torch.zeros(())}
        module._add_notes(losses, rows)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        found.append(losses["notes"].item())
    assert found[0] == pytest.approx(math.log(CLASSES), abs=1.0) and found[-1] < 0.9 * found[0]


def test_chords_and_bands_have_no_notes_to_learn(items):
    module, losses = PocketAudioMAE(note_weight=1.0), {"loss": torch.zeros(())}
    rows = batch(items[:2])
    rows["metadata"] = [{**fields, "texture": "accompanied"} for fields in rows["metadata"]]
    module._add_notes(losses, rows)
    assert set(losses) == {"loss"}


def test_training_goes_on_from_written_weights(trained, items):
    again = PocketAudioMAE(start=trained.folder, note_weight=0.1)
    rows = batch(items[:2])
    with torch.no_grad():
        before, after = (
            module.eval().encoder.forward_features(module.banks(rows)) for module in (trained.module, again)
        )
    assert torch.allclose(before, after, atol=2e-2)
    with pytest.raises(InputError, match=r"audio_mae\.yaml"):
        PocketAudioMAE(start=trained.folder / "nowhere")


def test_padding_is_silence(items):
    module = PocketAudioMAE()
    rows = batch(items[:1])
    half = {"waveform": rows["waveform"].clone(), "num_samples": [40_960]}
    half["waveform"][:, 40_960:] = 0
    banks = module.banks(half)
    assert (banks[:, :, 260:] == banks[0, 0, -1, 0]).all()
    assert torch.allclose(banks[:, :, :200], module.banks(rows)[:, :, :200], atol=0.05)


def test_refusals():
    for setting, match in (
        ({"mask_share": 1.0}, "model.mask_share: 1.0"),
        ({"visible_weight": -1}, "model.visible_weight: -1"),
        ({"label_weight": -1}, "model.label_weight: -1"),
        ({"note_weight": -1}, "model.note_weight: -1"),
        ({"level": (3.0, -3.0)}, "model.level"),
        ({"decoder_width": 90}, "model.decoder_width: 90"),
        ({"learning_rate": 0}, "model.learning_rate"),
    ):
        with pytest.raises(InputError, match=match):
            PocketAudioMAE(**setting)


# --- training and the written folder --------------------------------------------------------------------------------


def test_the_loss_falls(trained):
    assert sum(trained.losses.train[-4:]) < 0.6 * sum(trained.losses.train[:4])
    first, last = trained.losses.val
    assert last["val/loss"] < first["val/loss"]
    assert {"val/hidden", "val/visible", "val/labels", "train/hidden"} <= set(last) and 0 < last["val/unexplained"] < 1


def test_training_and_validation_repeat_exactly(items, tmp_path):
    runs = [fit(PocketAudioMAE(folder=tmp_path / name, seed=3), tmp_path, items[:2], 2) for name in "ab"]
    assert runs[0].train == runs[1].train and runs[0].val == runs[1].val
    assert PocketAudioMAE(seed=4).encoder.cls_token.sum() != PocketAudioMAE(seed=3).encoder.cls_token.sum()


def test_written_folder_is_read_by_the_ordinary_class(trained, items):
    folder = trained.folder / "audio_encoder"
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.float16}
    model = AudioMAE.from_pretrained(folder)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert model.window_seconds == 5.12 and model.grid_size == (32, 8)
    rows = batch(items[:2])
    with torch.no_grad():
        expected = trained.module.encoder.forward_features(trained.module.banks(rows))[:, 1:]
    assert torch.allclose(model(rows["waveform"]).flatten(1, 2), expected, atol=2e-2)
    assert next(trained.module.encoder.parameters()).dtype == torch.float32


def test_the_written_decoder_fills_in_the_same(trained):
    own, written = trained.module.decoder, PatchDecoder.load(trained.folder / "audio_encoder" / DECODER)
    tokens, seen = torch.randn(2, 1 + 51, own.sizes["tokens"]), torch.rand(2, 256).argsort(dim=1)[:, :51]
    with torch.no_grad():
        torch.testing.assert_close(written(tokens, seen), own.eval()(tokens, seen), rtol=0, atol=2e-2)


def test_pictures_of_the_reconstruction(trained):
    names = sorted(path.name for path in Path(trained.logs).glob("*.png"))
    assert names == ["masked_0000012.png", "masked_0000024.png"]


# --- figures --------------------------------------------------------------------------------------------------------


def test_sounding_columns():
    notes = [[0.0, 0.30, 60, 90], [0.31, 0.40, 62, 90], [0.41, 1.0, 71, 90]]
    fields = [
        {"texture": "accompanied", "melody": "a", "notes": notes},
        {"texture": "melody", "melody": "b", "notes": notes},
    ]
    columns = sounding_columns(fields, 32, 5.12, seed=0)
    # 0.16 to 0.32 s: 0.14 s of 60; 0.32 to 0.48: split; 0.96 to 1.12: too little of 71
    assert columns.place.tolist() == [0, 1, 3, 4, 5]
    assert columns.pitch.tolist() == [0, 0, 11, 11, 11]
    assert set(columns.clip) == {1} and set(columns.melody) == {"b"}
    assert len(sounding_columns([{"texture": "melody", "melody": "c", "notes": []}], 32, 5.12, seed=0).pitch) == 0


def test_measure(trained, items, monkeypatch, tmp_path):
    monkeypatch.setattr(measure_audio_mae, "MOST_COLUMNS", 160)
    rows = batch(items)
    clips = Clips(rows["waveform"], rows["key"], metadata=rows["metadata"])
    figures = measure(Subject(trained.folder, clips, pictures=tmp_path))
    assert [figure.name.split()[0] for figure in figures] == ["instrument", "pitch", "pitch", "pitch", "pitch", "share"]
    *figures, untold = figures
    assert untold.value < untold.untrained and untold.value < 1 and (tmp_path / "audio_mae.png").is_file()
    assert {figure.part for figure in figures} == {"audio_mae"}
    for figure in figures:
        assert figure.low <= figure.value <= figure.high and figure.clips == len(items)
        assert figure.untrained is not None and set(figure.compared) == {"filter-bank patches"}
    instrument, pitch = figures[:2]
    assert instrument.value > 0.8  # two instruments that differ in their overtones
    assert pitch.value > 3 / 12


def test_too_few_melodies(trained, items):
    rows = batch(items[:4])
    with pytest.raises(InputError, match="clips: 2 melodies"):
        measure(Subject(trained.folder, Clips(rows["waveform"], rows["key"], metadata=rows["metadata"])))
