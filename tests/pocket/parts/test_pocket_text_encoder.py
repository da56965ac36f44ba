"""The pocket text encoder: its words, its tokenizers, span corruption, what it writes and what is measured."""

import random
from collections import Counter
from itertools import pairwise, permutations
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from transformers import AutoTokenizer, RobertaTokenizer, T5EncoderModel, T5Tokenizer

from apa_lightning import InputError
from apa_lightning.conditioning.caption_templates import TEMPLATES
from apa_lightning.pocket.measures.text_encoder import MeanState, measure
from apa_lightning.pocket.measures.text_probe import PROBES, worded_captions
from apa_lightning.pocket.parts.text_encoder import IGNORED, PocketTextEncoder, mean_state
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.pocket.text import prompts
from apa_lightning.pocket.text.span_corruption import span_corruption
from apa_lightning.pocket.text.tokenizers import clap_tokenizer, corpus, t5_tokenizer
from datamodules.music.composition.grooves import GENRES
from datamodules.music.composition.instruments import INSTRUMENTS
from datamodules.prompts import PromptDataModule, held_out_captions

PAPER = ["a recording of a violin solo", "jazz style music", "Duet, played with cello accompaniment"]


class Losses(L.Callback):
    def __init__(self):
        self.train, self.prompts = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, *_):
        self.train.append(float(outputs["loss"]))
        self.prompts.append(batch["prompt"])


def fit(module: PocketTextEncoder, steps: int, batch_size: int = 16, ckpt_path=None, callbacks=()) -> tuple:
    losses = Losses()
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=None,
        val_check_interval=2,
        limit_val_batches=2,
        num_sanity_val_steps=0,
        callbacks=[losses, *callbacks],
    )
    trainer.fit(module, datamodule=PromptDataModule(batch_size), ckpt_path=ckpt_path, weights_only=True)
    return trainer, losses


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("t5")
    module = PocketTextEncoder(folder, warmup_steps=5)
    trainer, losses = fit(module, 30)
    return SimpleNamespace(module=module.eval(), folder=folder, trainer=trainer, losses=losses.train)


def label_clips() -> Clips:
    """A clip of every kind in every template."""
    names = list(prompts.INSTRUMENTS.values())
    kinds = [[label] for label in [*names, *prompts.GENRES.values()]] + list(map(list, permutations(names, 2)))
    rows = [(template.replace("{}", prompts.label_text(labels)), labels) for labels in kinds for template in TEMPLATES]
    return Clips(torch.zeros(len(rows), 1), [str(i) for i in range(len(rows))], *map(list, zip(*rows, strict=True)))


# --- words ----------------------------------------------------------------------------------------------------------


def test_the_words_are_those_of_the_music():
    assert {i.name: i.label for i in INSTRUMENTS.values()} == prompts.INSTRUMENTS
    assert {genre.name: genre.label for genre in GENRES.values()} == prompts.GENRES


def test_half_of_the_captions_are_the_papers():
    rng = random.Random(0)
    drawn = [
        (
            prompts.Meaning("violin").caption(rng),
            prompts.Meaning(genre="jazz").caption(rng),
            prompts.Meaning("harp", "cello").caption(rng),
        )
        for _ in range(600)
    ]
    for paper, texts in zip(PAPER, zip(*drawn, strict=True), strict=True):
        counts = Counter(texts)
        assert 250 < counts.pop(paper) < 350
        assert len(counts) >= 12 and min(counts.values()) > 3


def test_captions_name_what_they_are_about():
    for name in prompts.INSTRUMENTS:
        assert all(name in text for text in prompts.Meaning(name).captions())
    assert all("harp" in text and "organ" in text for text in prompts.Meaning("harp", "organ").captions()[1:])
    assert (
        "an organ solo" in prompts.Meaning("organ").captions() and "a harp solo" in prompts.Meaning("harp").captions()
    )
    assert "an organ accompanies an acoustic guitar" in prompts.Meaning("acoustic guitar", "organ").captions()
    rng = random.Random(0)
    described = {prompts.described(rng, "a harp solo", prompts.description(rng)).lower() for _ in range(50)}
    assert len(described) > 30 and all("a harp solo" in text for text in described)


def test_the_papers_prompts_are_never_held_out():
    assert set(PAPER) < prompts.PAPER_PROMPTS and "low quality music" in prompts.PAPER_PROMPTS
    assert not any(map(prompts.held_out, prompts.PAPER_PROMPTS))


# --- tokenizers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "kind", "size"), [(clap_tokenizer, RobertaTokenizer, 1000), (t5_tokenizer, T5Tokenizer, 900)]
)
def test_tokenizers_read_any_prompt_and_are_written_as_they_are(make, kind, size, tmp_path):
    tokenizer = make()
    assert isinstance(tokenizer, kind) and len(tokenizer) == size and tokenizer.model_max_length == 128
    ascii_text = "".join(map(chr, range(33, 127)))
    texts = [*PAPER, ascii_text, "", *corpus()]
    ids = tokenizer(texts).input_ids
    assert tokenizer.unk_token_id not in {i for row in ids for i in row}
    assert tokenizer.decode(ids[3], skip_special_tokens=True).strip() == ascii_text
    for name in (*prompts.INSTRUMENTS, *prompts.GENRES):  # one piece a word
        assert len(tokenizer(name, add_special_tokens=False).input_ids) == len(name.replace("-", " - ").split())
    tokenizer.save_pretrained(tmp_path)
    for read in (AutoTokenizer.from_pretrained(tmp_path), kind.from_pretrained(tmp_path)):
        assert type(read) is kind and read.model_max_length == 128 and read(texts).input_ids == ids
    assert make().get_vocab() == tokenizer.get_vocab()


# --- span corruption ------------------------------------------------------------------------------------------------


def test_what_is_missing_is_said():
    generator, sentinels = torch.Generator().manual_seed(0), list(range(1000, 984, -1))
    ends, share = Counter(), []
    for turn in range(300):
        tokens = list(range(1, 2 + turn % 20))
        read, said = span_corruption(tokens, sentinels, 0.25, 2.0, generator)
        used = [token for token in read if token > 900]
        places = [said.index(sentinel) for sentinel in sentinels[: len(used) + 1]]
        spans = {said[a]: said[a + 1 : b] for a, b in pairwise(places)}
        filled = [piece for token in read for piece in spans.get(token, [token])]
        assert filled == tokens and all(spans.values())  # both halves together are the text
        assert used == sentinels[: len(used)] and places[-1] == len(said) - 1
        assert not any(a > 900 and b > 900 for a, b in pairwise(read))
        ends["first"] += read[0] > 900
        ends["last"] += read[-1] > 900
        share.append(sum(map(len, spans.values())) / len(tokens))
    assert min(ends.values()) > 30  # a caption's name often stands at its end, and its first words count too
    assert sum(share) / len(share) == pytest.approx(0.3, abs=0.1)


def test_batches_end_and_are_padded():
    module = PocketTextEncoder()
    plain = "a recording of a violin solo"
    generator = torch.Generator().manual_seed(0)
    inputs = module.tasks(["violin", plain, "violin"], [plain] * 3, [False, False, True], generator)
    ends = (inputs["input_ids"] == module.tokenizer.eos_token_id).sum(1)
    assert ends.tolist() == [1, 1, 1] and inputs["attention_mask"].sum(1).tolist()[0] == 2
    said = [[int(i) for i in row if i != IGNORED] for row in inputs["labels"]]
    (violin,) = module.tokenizer("violin", add_special_tokens=False).input_ids
    assert said[0] == [module.sentinels[0], violin, module.sentinels[1], module.tokenizer.eos_token_id]
    assert inputs["input_ids"][2, 0] == violin and module.tokenizer.decode(said[2]) == f"{plain}</s>"


def test_a_restated_caption_is_told_from_its_mean_alone():
    module = PocketTextEncoder().eval()
    generator = torch.Generator().manual_seed(0)
    inputs = module.tasks(["a violin solo", "violin"], ["violin music"] * 2, [True, True], generator)
    with torch.no_grad():
        mean, whole = (module.answer(inputs, torch.tensor([flag, True])).logits for flag in (True, False))
        states = module.model.encoder(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        shuffled = module.model(
            encoder_outputs=(mean_state(states, inputs["attention_mask"])[:, None],), labels=inputs["labels"]
        ).logits
    torch.testing.assert_close(mean, shuffled, atol=1e-5, rtol=1e-4)
    assert (mean[0] - whole[0]).abs().max() > 1e-4 and torch.equal(mean[1], whole[1])


# --- data -----------------------------------------------------------------------------------------------------------


def test_held_out_captions_are_never_trained_on():
    data = PromptDataModule(8, described=0.0)
    pairs = [data.draw(0, step, i) for step in range(80) for i in range(8)]
    texts = [text for text, _ in pairs]
    held_out = [text for batch in data.val_dataloader() for text in batch["prompt"]]
    assert held_out == [text for text, _ in held_out_captions()] and 150 < len(held_out) < 300
    assert not set(texts) & set(held_out)
    started = [template for template in TEMPLATES if any(text.startswith(template.split("{}")[0]) for text in texts)]
    assert started == list(TEMPLATES) and set(PAPER) & set(texts)
    assert pairs == [data.draw(0, step, i) for step in range(80) for i in range(8)]


def test_every_meaning_has_one_plain_wording():
    data = PromptDataModule(described=0.0)
    pairs = dict(data.draw(step) for step in range(4000))
    assert pairs["Duet, played with cello accompaniment"] == "Duet, played with cello accompaniment"  # the lead is open
    assert pairs["a recording of the violin solo"] == pairs["violin"] == "a recording of a violin solo"
    assert pairs["jazz"] == "jazz style music" and pairs["low quality music"] == "low quality music"
    assert len(set(pairs.values())) == 8 + 8 + 8 + 56 + 1
    described = [PromptDataModule(described=1.0).draw(step) for step in range(20)]
    assert all(set(plain.split(", ")[1:]) <= {*prompts.DESCRIPTIONS, *plain.split(", ")[:2]} for _, plain in described)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PocketTextEncoder(restated=-1), r"model\.restated: -1; it must be between 0 and 1"),
        (lambda: PocketTextEncoder(noise_density=0.0), r"model\.noise_density: 0\.0; it must be above 0"),
        (lambda: PocketTextEncoder(mean_span=0.5), r"model\.mean_span: 0\.5; it must be at least 1 token"),
        (lambda: PromptDataModule(batch_size=0), r"batch_size: 0; give"),
        (lambda: PromptDataModule(described=2.0), r"described: 2\.0; give"),
    ],
)
def test_wrong_settings_say_so(make, message):
    with pytest.raises(InputError, match=message):
        make()


# --- training -------------------------------------------------------------------------------------------------------


def test_the_loss_falls(trained):
    assert sum(trained.losses[-5:]) < 0.7 * sum(trained.losses[:5])
    assert {"val/loss", "val/loss_spans", "val/loss_restated", "val/restated"} <= set(trained.trainer.callback_metrics)


def test_runs_resume_exactly(tmp_path):
    class Save(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "two.ckpt")

    whole, resumed = (PocketTextEncoder(tmp_path / name) for name in "ab")
    _, first = fit(whole, 4, batch_size=4, callbacks=[Save()])
    _, rest = fit(resumed, 4, batch_size=4, ckpt_path=tmp_path / "two.ckpt")
    assert rest.prompts == first.prompts[2:]
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_what_is_written_is_the_encoder(trained):
    tokenizer = T5Tokenizer.from_pretrained(trained.folder / "tokenizer_2")
    model = T5EncoderModel.from_pretrained(trained.folder / "text_encoder_2", dtype=torch.float32)
    assert sum(p.numel() for p in model.parameters()) < 800_000
    tokens = tokenizer(PAPER, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = trained.module.model.encoder(**tokens).last_hidden_state
        torch.testing.assert_close(model(**tokens).last_hidden_state, expected, atol=5e-3, rtol=5e-3)


# --- measuring ------------------------------------------------------------------------------------------------------


def test_the_probes_captions_are_all_wordings_and_the_templates():
    rows = worded_captions()
    assert {wording for wording, _ in rows.values()} >= set(TEMPLATES) and len(rows) > 1800
    assert {PROBES["task"][0](meaning) for _, meaning in rows.values()} == {"solo", "genre", "duet"}
    assert PROBES["instrument"][0](rows["the sound of marimba, xylophone"][1]) == "marimba"


def test_padding_does_not_change_a_mean_state(trained):
    embed = MeanState(trained.module.tokenizer, trained.module.model.get_encoder())
    torch.testing.assert_close(embed(PAPER), torch.cat([embed([text]) for text in PAPER]), atol=1e-5, rtol=1e-5)


def test_the_measure_says_what_a_probe_reads(trained):
    few = label_clips().take(range(0, 1080, 36))
    figures = {figure.name.split(": ")[1]: figure for figure in measure(Subject(trained.folder, few))}
    assert list(figures) == ["instrument", "genre", "task", "accompaniment"]
    for name, figure in figures.items():
        assert (
            figure.part == "text_encoder" and figure.low <= figure.value <= figure.high and figure.untrained is not None
        )
        assert figure.target == ("" if name == "accompaniment" else ">= 0.99")
    assert figures["instrument"].value > 0.8
