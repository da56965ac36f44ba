"""The adapter with a projector before its keys and values: exactness, training, files, and the command line."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from fit_tools import WINDOW, build, clips, fit
from random_folders import tiny_backbone, tiny_flags

from apa_lightning import AudioEditor, InputError, ProjectedAdapter
from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.adapters.base import AdapterError
from apa_lightning.audio import save_audio
from apa_lightning.backbones.architectures import AUDIOLDM2_LARGE, adapted_unet
from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone
from apa_lightning.cli.main import main
from apa_lightning.conditioning.dropout import ConditionDropout, audio_tokens
from callbacks.adapter_ema import AdapterEMA
from callbacks.adapter_export import AdapterExport

ROOT = Path(__file__).parents[2]


@pytest.fixture()
def short() -> AudioLDM2Backbone:
    """A backbone with a window of 1.28 s."""
    return AudioLDM2Backbone.from_pretrained(tiny_backbone(WINDOW))


@pytest.fixture()
def trained(short) -> ProjectedAdapter:
    """All weights differ from their initialization."""
    adapter = short.new_adapter(ProjectedAdapter(hidden_width=24))
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    return adapter


def edit(backbone, *adapters, **knobs):
    editor = AudioEditor.from_pretrained(backbone, audio_encoder=tiny_backbone(WINDOW) / "audio_encoder", adapter=None)
    editor = AudioEditor(backbone, editor.audio_encoder, adapters)
    waveform = clips(1, backbone.window_samples)[0]["waveform"]
    knobs = {"prompt": "jazz", "num_inference_steps": 2, "progress": False} | knobs
    return editor.edit((waveform, 16_000), **knobs).waveform


def test_weights_at_the_width_of_audioldm2():
    with torch.device("meta"):
        layers = adapted_unet(AUDIOLDM2_LARGE)[1]
        adapter = ProjectedAdapter().initialize(layers)
    assert sum(weight.numel() for weight in adapter.projector.parameters()) == 4_719_360
    assert sum(weight.numel() for weight in adapter.parameters()) == 4_719_360 + 21_626_880


def test_an_untrained_one_equals_the_papers_bit_for_bit(short):
    projected = short.new_adapter(ProjectedAdapter())
    again = short.new_adapter(ProjectedAdapter())
    assert projected.is_untrained and projected.digest() == again.digest() != short.new_adapter().digest()
    assert projected.to(torch.bfloat16).digest() == again.digest()
    assert torch.equal(edit(short, again), edit(short, short.new_adapter()))


def test_zero_tokens_stay_no_audio_prompt(short, trained):
    tokens = torch.zeros(1, 3, short.stream_width)
    assert not trained.project(tokens).any()
    assert trained.project(tokens + 1).any()
    assert torch.equal(edit(short, trained, ap_scale=0.0), edit(short, short.new_adapter(), ap_scale=0.0))


@pytest.mark.parametrize("dropout", [0.0, 1.0])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_all_weights_get_gradients(dropout, gradient_checkpointing):
    """Zeros where nothing can be learned, so that DDP waits for none: W1 until W2 moved, all where every audio prompt is dropped."""
    module = build(
        adapter=ProjectedAdapter(),
        condition_dropout=ConditionDropout(audio=dropout, text=0, both=0),
        gradient_checkpointing=gradient_checkpointing,
    )
    projector, items = module.adapter.projector, clips(1, module.backbone.window_samples)[0]
    batch = {"waveform": items["waveform"][None], "prompt": ["jazz"]}
    text, draw = module.backbone.encode_text(["jazz"]), torch.Generator()
    grid, learns = module.window_encoder().grid_of(batch), dropout == 0

    def gradients() -> list[bool]:
        module.adapter.zero_grad()
        loa = audio_tokens(grid, module.condition_dropout.draw(1, draw)[1], 2)
        module._losses(module.window_encoder().target_of(batch, draw), text, loa, draw)[0].mean().backward()
        assert all(weight.grad is not None for weight in module.adapter.parameters())
        return [bool(layer.weight.grad.any()) for layer in (projector.norm, projector.hidden, projector.output)]

    assert gradients() == [False, False, learns]
    torch.nn.init.normal_(projector.output.weight, std=0.1)
    assert gradients() == [learns] * 3


def test_training_moves_the_projector_and_the_average_and_the_file_hold_it(tmp_path):
    module = build(adapter=ProjectedAdapter(), condition_dropout=ConditionDropout(text=0, audio=0, both=0))
    before = {name: weight.detach().clone() for name, weight in module.adapter.projector.named_parameters()}
    average = AdapterEMA(decay=0.5)
    fit(module, tmp_path, [average, AdapterExport()], steps=3)
    moved = {
        name for name, weight in module.adapter.projector.named_parameters() if not torch.equal(weight, before[name])
    }
    assert moved == set(before)
    stored = safetensors.torch.load_file(tmp_path / "adapter.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in average.state_dict()["average"].items())
    assert not module.adapter.is_untrained


def test_a_file_chooses_its_class(tmp_path, short, trained):
    trained.save(tmp_path / "a.safetensors", step=7)
    loaded = short.new_adapter(tmp_path / "a.safetensors")
    assert type(loaded) is ProjectedAdapter and loaded.digest() == trained.digest()
    assert loaded.metadata == {"step": "7"}
    tokens = torch.randn(1, 4, short.stream_width)
    assert torch.equal(loaded.project(tokens), trained.project(tokens))
    short.new_adapter().save(tmp_path / "b.safetensors")
    assert type(short.new_adapter(tmp_path / "b.safetensors")) is AudioPromptAdapter
    editor = AudioEditor.from_pretrained(
        short, [tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tiny_backbone(WINDOW) / "audio_encoder"
    )
    assert [type(adapter) for adapter in editor.adapters] == [ProjectedAdapter, AudioPromptAdapter]


def test_a_checkpoint_chooses_its_class_and_resumes_with_its_own(tmp_path):
    module = build(adapter=ProjectedAdapter(hidden_width=24))
    trainer = fit(module, tmp_path, [], steps=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = build(adapter=str(tmp_path / "last.ckpt")).adapter
    assert type(loaded) is ProjectedAdapter and loaded.digest() == module.adapter.digest()
    resumed = build(adapter=ProjectedAdapter(hidden_width=24))
    fit(resumed, tmp_path, [], steps=2, ckpt_path=tmp_path / "last.ckpt")
    assert resumed.adapter.digest() == module.adapter.digest()
    for adapter, message in [
        (
            None,
            "ckpt_path: the checkpoint holds an adapter of the variant projected; this one is of the variant audio_prompt",
        ),
        (ProjectedAdapter(), "its projector has hidden_width 24, this one .* Give hidden_width 24"),
    ]:
        with pytest.raises(InputError, match=message):
            fit(build(adapter=adapter), tmp_path, [], ckpt_path=tmp_path / "last.ckpt")


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_it_starts_from_an_adapter_of_the_papers_variant(tmp_path, short, suffix):
    paper = short.new_adapter()
    with torch.no_grad():
        for weight in paper.parameters():
            weight.mul_(2)
    file = tmp_path / f"paper{suffix}"
    paper.save(file) if suffix == ".safetensors" else paper.export_published(file)
    started = short.new_adapter(ProjectedAdapter(start_from=str(file)))
    assert started.name == "paper" and not started.projector.output.weight.any()
    assert started.metadata.get("dropped_audio") == (None if suffix == ".safetensors" else "zero_fbank")
    assert torch.equal(edit(short, started), edit(short, short.new_adapter(file)))
    started.save(tmp_path / "started.safetensors")
    assert (
        short.new_adapter(ProjectedAdapter(start_from=str(tmp_path / "started.safetensors"))).digest()
        == started.digest()
    )


def test_two_variants_edit_together(short, trained):
    """Each adapter reads its own projection: with alpha 0 for one the edit is the other's."""
    paper = short.new_adapter()
    alone = edit(short, trained), edit(short, paper)
    assert not torch.equal(*alone)
    assert torch.equal(edit(short, trained, paper, ap_scale=[0.5, 0.0]), edit(short, trained, ap_scale=0.5))
    assert torch.equal(edit(short, trained, paper, ap_scale=[0.0, 0.5]), edit(short, paper, ap_scale=0.5))


def rewritten(path: Path, change, **metadata: str) -> None:
    """The adapter file with its weights changed by ``change``."""
    weights = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        header = file.metadata() | metadata
    change(weights)
    safetensors.torch.save_file(weights, path, metadata=header)


HIDDEN = "projector.hidden.weight"


@pytest.mark.parametrize(
    ("change", "metadata", "message"),
    [
        (lambda w: w.pop(HIDDEN), {}, f"lacks 1 of 11 weights .* first {HIDDEN}"),
        (lambda w: w.update({HIDDEN: torch.ones(())}), {}, rf"{HIDDEN} has shape \(\), this backbone needs"),
        (lambda w: w.update({HIDDEN: torch.ones(24, 3)}), {}, rf"{HIDDEN} has shape \(24, 3\), this backbone needs"),
        (lambda w: w.update({HIDDEN: torch.ones(0, 48)}), {}, r"adapter\.hidden_width: 0; give 1 or more"),
        (lambda w: w[HIDDEN].fill_(float("nan")), {}, f"{HIDDEN} contains NaN"),
        (lambda w: None, {"variant": "rotated"}, "of the variant rotated; this program knows audio_prompt, projected"),
        (lambda w: None, {"variant": "audio_prompt"}, "holds 3 weights that this backbone lacks, first projector"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, short, trained, change, metadata, message):
    trained.save(tmp_path / "a.safetensors")
    rewritten(tmp_path / "a.safetensors", change, **metadata)
    with pytest.raises(InputError, match=message):
        short.new_adapter(tmp_path / "a.safetensors")


def test_what_it_cannot_do_is_refused(tmp_path, short, trained):
    with pytest.raises(AdapterError, match="the published format has no place for the projector"):
        trained.export_published(tmp_path / "pytorch_model.bin")
    trained.save(tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match="variant projected; this one is of the variant audio_prompt"):
        short.new_adapter().load(tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"hidden_width 24, this one 192\. Give hidden_width 24"):
        short.new_adapter(ProjectedAdapter(start_from=str(tmp_path / "a.safetensors")))
    with pytest.raises(InputError, match=r"adapter\.hidden_width: 0"):
        short.new_adapter(ProjectedAdapter(0))


def test_fit_and_predict_by_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["apa_lightning"])
    main(
        [
            "fit", "--config", "configs/base.yaml", "--config", "tests/small.yaml",
            "--config", "configs/training/projected_adapter.yaml", *tiny_flags(WINDOW),
            "--model.adapter.init_args.hidden_width", "16", "--trainer.max_steps", "2", "--trainer.val_check_interval", "2",
            "--trainer.callbacks", "[{class_path: callbacks.AdapterExport}, {class_path: callbacks.AdapterEMA}]",
            "--trainer.default_root_dir", str(tmp_path),
        ]
    )  # fmt: skip
    adapter = tmp_path / "lightning_logs" / "version_0" / "adapter.safetensors"
    assert safetensors.torch.load_file(adapter)[HIDDEN].shape[0] == 16
    save_audio(tmp_path / "songs" / "tone.wav", 0.3 * torch.sin(torch.arange(16_000) * 0.1), 16_000)
    main(
        [
            "predict", "--config", "configs/predict.yaml", *tiny_flags(WINDOW), "--model.adapter", str(adapter),
            "--model.further_adapters", f"[{adapter}]", "--data.folder", str(tmp_path / "songs"), "--data.prompt", "a violin",
            "--data.num_inference_steps", "1", "--data.output", str(tmp_path / "edits"), "--trainer.accelerator", "cpu",
        ]
    )  # fmt: skip
    assert len((tmp_path / "edits" / "results.jsonl").read_text().splitlines()) == 1
    with pytest.raises(SystemExit) as end:
        main(
            [
                "adapter",
                "--source",
                str(adapter),
                "--to",
                str(tmp_path / "x.bin"),
                "--backbone",
                str(tiny_backbone(WINDOW)),
            ]
        )
    assert end.value.code == 2
    assert "no place for the projector" in capsys.readouterr().err
    assert not (tmp_path / "x.bin").exists()
