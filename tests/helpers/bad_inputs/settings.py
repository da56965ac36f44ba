"""Bad inputs 21: configuration files and command lines."""

from collections.abc import Callable

from bad_inputs.cases import refused
from bad_inputs.room import Room

OVERLAYS = {
    "unknown_key": ("colour", "model: {init_args: {colour: 1}}"),
    "unknown_trainer_key": ("max_step", "trainer: {max_step: 1}"),
    "wrong_type": ("max_steps|many", "trainer: {max_steps: many}"),
    "dropout": ("condition_dropout.text: 1.5", "model: {init_args: {condition_dropout: {text: 1.5}}}"),
    "batch_size_0": ("batch_size|at least 1", "data: {init_args: {batch_size: 0}}"),
    "learning_rate": (
        "learning rate",
        "model: {init_args: {optimizer: {class_path: torch.optim.AdamW, init_args: {lr: -1}}}}",
    ),
    "class_path": ("model|markers.leave", "model: {class_path: markers.leave}"),
    "callback": ("callbacks", "trainer: {callbacks: [{class_path: markers.leave}]}"),
    "syntax": ("overlay.yaml", "a: ["),
    "empty": ("overlay.yaml is empty", ""),
    "object": ("overlay.yaml", "!!python/object/apply:markers.leave ['CANARY']"),
}
OTHER_COMMANDS = [
    (21, "architecture-sizes", "huge", ["sizes", "--architecture", "huge"]),
    (21, "folder-sizes", "unet/config.json", ["sizes", "--folder", "tests"]),
    (21, "segments-shards", "none.csv", ["shards", "--segments", "none.csv", "--clips", "tests", "--out", "OUT"]),
    (21, "command", "nonsense", ["nonsense"]),
    (21, "no_model-fit", "model", ["fit"]),
    (21, "missing_file-fit", "nowhere.yaml", ["fit", "--config", "nowhere.yaml"]),
    (22, "missing-adapter", "none.bin", ["adapter", "--source", "none.bin"]),
]


def overlay(text: str) -> Callable[[Room], list[object]]:
    return lambda r: r.fit("--config", r.write("overlay.yaml", text.replace("CANARY", str(r.path / "canary"))))


CASES = [
    *(refused(21, f"{name}-fit", words, overlay(text)) for name, (words, text) in OVERLAYS.items()),
    *(
        refused(number, name, words, lambda r, line=line: [str(r.path / "out") if w == "OUT" else w for w in line])
        for number, name, words, line in OTHER_COMMANDS
    ),
]  # fmt: skip
