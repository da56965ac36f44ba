"""The U-Net by OpenVINO: the same numbers as by torch, and torch wherever it cannot be used.

A stand-in of the library, which computes the exported module by torch, shows what does not depend on OpenVINO itself.
"""

import copy
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from fit_tools import clips, loader
from lightning.pytorch import Trainer
from random_folders import tiny_backbone, tiny_parts
from tunes import melody

from apa_lightning import AudioEditor, AudioPromptModule, ProjectedAdapter
from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone
from apa_lightning.conditioning.dropout import PoolingRates
from apa_lightning.utils import openvino_module

WINDOW = 32
NOISE = torch.Generator().manual_seed(0)


class Library(ModuleType):
    """``openvino`` as far as it is used; ``exported`` and ``compiled`` list what was made."""

    __version__ = "stand-in"

    def __init__(self):
        super().__init__("openvino")
        self.__spec__ = ModuleSpec("openvino", None)
        self.exported, self.compiled, self.saved = [], [], {}
        self.writable = True

    def convert_model(self, module, example_input):
        module(*example_input)
        self.exported.append(module)
        return SimpleNamespace(module=module, clone=lambda: self.graph(module))

    def graph(self, module):
        graph = SimpleNamespace(module=module)
        graph.reshape = lambda shapes: setattr(graph, "shapes", [tuple(one) for one in shapes.values()])
        return graph

    def save_model(self, model, path, compress_to_fp16):
        assert not compress_to_fp16
        for file in (path, path.with_suffix(".bin")):
            file.write_text("graph")
        self.saved[path.name.removeprefix("partial-")] = model

    def read_model(self, path):
        if path.name not in self.saved:
            raise RuntimeError("damaged")
        return self.saved[path.name]

    def compile_model(self, graph, device, options):
        if "CACHE_DIR" in options:
            if not self.writable:
                raise RuntimeError("the folder cannot be written")
            folder = Path(options["CACHE_DIR"])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{len(self.compiled)}.blob").write_text("compiled")

        def run(given, share_inputs):
            assert [one.shape for one in given] == graph.shapes
            return [graph.module(*map(torch.from_numpy, given)).numpy()]

        self.compiled.append(graph.shapes)
        return SimpleNamespace(create_infer_request=lambda: SimpleNamespace(infer=run))

    def Core(self):
        return SimpleNamespace(read_model=self.read_model, compile_model=self.compile_model)


@pytest.fixture()
def library(monkeypatch, tmp_path) -> Library:
    stand_in = Library()
    monkeypatch.setitem(sys.modules, "openvino", stand_in)
    monkeypatch.setenv(openvino_module.SWITCH, "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return stand_in


@pytest.fixture()
def editor() -> AudioEditor:
    """Two adapters, one with a projector, whose weights are not those of the backbone."""
    folder = tiny_backbone(WINDOW)
    editor = AudioEditor.from_pretrained(folder, [None, None], folder / "audio_encoder")
    editor.adapters[1] = editor.backbone.new_adapter(ProjectedAdapter(hidden_width=8))
    with torch.no_grad():
        for weight in (weight for adapter in editor.adapters for weight in adapter.parameters()):
            weight.add_(0.1 * torch.randn(weight.shape, generator=NOISE))
    return editor


def conditions(backbone: AudioLDM2Backbone, prompts: int, adapters: int):
    tokens = [torch.randn(prompts, 4, backbone.stream_width, generator=NOISE) for _ in range(adapters)]
    latents = torch.randn(prompts, *backbone.latent_shape(), generator=NOISE)
    return backbone.encode_text(["jazz", "", "a recording of a violin solo with words"][:prompts]), tokens, latents


def edit(editor: AudioEditor, seconds: float = 1.0, **knobs) -> torch.Tensor:
    knobs = {"prompt": "jazz", "negative_prompt": "noise of rain", "num_inference_steps": 2, "progress": False} | knobs
    return editor.edit((melody(0, seconds=seconds), 16_000), match_level=False, **knobs).waveform


@pytest.mark.parametrize("scales", [[], [0.5], [{"down": 1.0}], [0.3, {"up": 0.7, "mid": 0.1}]], ids=str)
def test_predictions_are_those_of_torch(editor, library, scales):
    backbone, time = editor.backbone, torch.tensor(501)
    text, tokens, latents = conditions(backbone, 3, len(scales))
    with torch.no_grad():
        if scales:
            backbone.install(editor.adapters[: len(scales)])
            backbone.set_scale(scales)
        model = backbone.predictor(text, tokens)
        torch.testing.assert_close(
            model(latents, time), backbone.predict(latents, time, text, tokens), atol=1e-5, rtol=0
        )
        if scales:  # alpha may move from step to step
            backbone.set_scale([0.9] * len(scales))
            expected = backbone.predict(latents, time, text, tokens)
            torch.testing.assert_close(model(latents, time), expected, atol=1e-5, rtol=0)
            assert len(library.exported) == len(library.compiled) == 1
            model = backbone.predictor(text)  # the same layers without a recording
            torch.testing.assert_close(model(latents, time), backbone.predict(latents, time, text), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "knobs",
    [
        {"guidance_interval": (0, 0.6)},
        {"text_guidance_scale": 3.0, "audio_guidance_scale": 1.5, "ap_scale_end": 0.0},
        {"scheduler": "EulerDiscreteScheduler", "strength": 0.5, "num_inference_steps": 5},
        {"guidance_scale": 1.0, "ap_scale": [0.5, {"up": 0.2}]},
    ],
    ids=str,
)
def test_edits_are_those_of_torch(editor, library, monkeypatch, knobs):
    made = edit(editor, **knobs)
    assert library.compiled
    monkeypatch.setenv(openvino_module.SWITCH, "0")
    torch.testing.assert_close(made, edit(editor, **knobs), atol=1e-4, rtol=0)


def test_an_edit_by_the_real_library(editor, monkeypatch, tmp_path):
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(openvino_module.SWITCH, "1")
    shapes = {}, {"time_pooling": 4, "guidance_scale": 1.0, "prompt": "a recording of a violin solo"}
    made = [edit(editor, **knobs) for knobs in shapes]
    assert sorted(file.suffix for file in tmp_path.rglob("*.*")) == [".bin", ".blob", ".blob", ".xml"]
    (graph,) = editor.backbone._openvino_unet._graphs.values()
    assert len(graph._compiled) == 2
    for file in tmp_path.rglob("*.blob"):  # damaged ones are made again
        content = file.read_bytes()
        file.unlink()  # OpenVINO makes them read-only
        file.write_bytes(content[:1000])
    graph._compiled.clear()
    torch.testing.assert_close(edit(editor), made[0], atol=1e-6, rtol=0)
    monkeypatch.setenv(openvino_module.SWITCH, "0")
    for one, knobs in zip(made, shapes, strict=True):
        torch.testing.assert_close(one, edit(editor, **knobs), atol=1e-4, rtol=0)


def test_validation_losses_are_those_of_torch(library, monkeypatch, tmp_path):
    """Strongly pooled audio prompts are repeated to 64 tokens, so that all pooling rates have one shape."""
    module = AudioPromptModule(**tiny_parts(WINDOW), pooling_rates=PoolingRates((1, 2, 8)))
    items = clips(2, WINDOW * 640)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet)
    (made,) = trainer.validate(module, loader(items), verbose=False)
    assert len(library.exported) == len(library.compiled) == 1
    monkeypatch.setenv(openvino_module.SWITCH, "0")
    (expected,) = trainer.validate(module, loader(items), verbose=False)
    assert made == pytest.approx(expected, abs=1e-5) and len(expected) == 7


def test_prompts_of_different_lengths_and_other_adapters_share_a_graph(editor, library):
    for prompt in ("jazz", "rain"):
        edit(editor, prompt=prompt)
    edit(AudioEditor(editor.backbone, editor.audio_encoder, editor.adapters[::-1]))
    assert len(library.exported) == len(library.compiled) == 1


def test_a_second_process_reads_the_export(editor, library):
    made = edit(editor)
    others = AudioLDM2Backbone.from_pretrained(tiny_backbone(WINDOW))
    assert torch.equal(edit(AudioEditor(others, editor.audio_encoder, editor.adapters)), made)
    assert len(library.exported) == 1 and len(library.compiled) == 2


def test_other_weights_are_another_graph(editor, library, monkeypatch):
    before = edit(editor)
    with torch.no_grad():
        editor.backbone.unet.conv_in.weight.mul_(1.5)
    made = edit(editor)
    monkeypatch.setenv(openvino_module.SWITCH, "0")
    torch.testing.assert_close(made, edit(editor), atol=1e-4, rtol=0)
    assert (made - before).abs().max() > 1e-3


@pytest.fixture()
def linear(library) -> openvino_module.OpenVINOModule:
    """A layer of two weights, which has been computed once."""
    module = openvino_module.OpenVINOModule(torch.nn.Linear(1, 1).requires_grad_(False), "layer")
    apply(module, 1)
    return module


@torch.no_grad()
def apply(module: openvino_module.OpenVINOModule, size: int) -> None:
    assert module.prepare()
    inputs = torch.ones(size, 1)
    assert torch.equal(module(inputs), module.module(inputs))


def test_shapes_stay_compiled_up_to_a_number_and_the_last_used_ones_do(linear, library):
    for size in (2, 3, 4, 1, 5, 1, 2):
        apply(linear, size)
    assert openvino_module.SHAPES == 4
    assert [shapes[0][0] for shapes in library.compiled] == [1, 2, 3, 4, 5, 2]
    assert len(library.exported) == 1


def test_exports_are_kept_up_to_a_number(linear, library, monkeypatch, tmp_path):
    monkeypatch.setattr(openvino_module, "EXPORTS", 2)
    for _ in range(3):
        linear.module.weight.mul_(2)
        apply(linear, 1)
    assert len(library.exported) == 4
    assert len(list(tmp_path.rglob("*.xml"))) == len(list(tmp_path.rglob("*.bin"))) == 2


def test_compiled_shapes_are_kept_up_to_a_number(linear, monkeypatch, tmp_path):
    monkeypatch.setattr(openvino_module, "COMPILED", 2)
    for size in (2, 3, 4):
        apply(linear, size)
    assert sorted(path.name for path in tmp_path.rglob("*.blob")) == ["2.blob", "3.blob"]


def test_shapes_that_cannot_be_kept_are_used(linear, library, tmp_path):
    library.writable = False
    apply(linear, 2)
    assert [path.name for path in tmp_path.rglob("*.blob")] == ["0.blob"]


def test_a_damaged_export_is_made_again(linear, library):
    library.saved.clear()  # reading it fails
    apply(copy.deepcopy(linear), 1)
    apply(copy.deepcopy(linear), 1)
    assert len(library.exported) == 2


@pytest.mark.parametrize("error", [RuntimeError("the disk is full"), PermissionError(13, "denied")], ids=repr)
def test_an_export_that_cannot_be_kept_is_used(linear, library, monkeypatch, tmp_path, caplog, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(library, "save_model", fails)
    linear.module.weight.mul_(2)
    apply(linear, 1)
    assert len(library.exported) == len(library.compiled) == 2
    assert f"cannot be kept in {tmp_path}" in caplog.text


@pytest.mark.parametrize("why", ["gradients", "autocast", "trained", "precision", "compiled", "switch", "absent"])
def test_torch_computes_where_openvino_may_not(editor, library, monkeypatch, why):
    backbone = editor.backbone
    if why == "trained":
        backbone.unet.requires_grad_(True)
    if why == "precision":
        backbone.to(torch.bfloat16)
    if why == "compiled":
        backbone.unet.mid_block._compiled_call_impl = backbone.unet.mid_block._call_impl  # as if by torch.compile
    if why == "switch":
        monkeypatch.setenv(openvino_module.SWITCH, "off")
    if why == "absent":
        monkeypatch.setitem(sys.modules, "openvino", None)
    text, _, latents = conditions(backbone, 1, 0)
    with torch.set_grad_enabled(why == "gradients"), torch.autocast("cpu", enabled=why == "autocast"):
        made = backbone.predictor(text)(latents, torch.tensor(1))
        assert torch.equal(made, backbone.predict(latents, torch.tensor(1), text))
    assert not library.exported


def test_a_failure_is_said_once_and_torch_goes_on(editor, library, monkeypatch, caplog):
    def fails(*_, **__):
        raise RuntimeError("no such operation\nsecond line")

    monkeypatch.setattr(library, "convert_model", fails)
    made = [edit(editor), edit(editor)]
    monkeypatch.setenv(openvino_module.SWITCH, "0")
    assert torch.equal(made[0], edit(editor)) and torch.equal(*made)
    (record,) = caplog.records
    assert "no such operation)" in record.getMessage() and "APA_LIGHTNING_OPENVINO=0" in record.getMessage()


def test_a_backbone_that_was_used_can_be_copied(editor, library):
    made = edit(editor)
    copied = AudioEditor(copy.deepcopy(editor.backbone), editor.audio_encoder, editor.adapters)
    assert torch.equal(edit(copied), made)
    assert len(library.compiled) == 2
