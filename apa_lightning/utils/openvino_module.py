"""Frozen modules by OpenVINO, where it is installed (``pip install apa_lightning[cpu]``): the same numbers in about half the time.

A module is exported once, and compiled once for each shape of its inputs; both are kept in the user's cache folder.
``APA_LIGHTNING_OPENVINO=0`` leaves everything to torch.
"""

import hashlib
import logging
import os
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from apa_lightning.utils.atomic_files import file_lock
from apa_lightning.utils.pretrained import first_line

log = logging.getLogger(__name__)
SWITCH = "APA_LIGHTNING_OPENVINO"
SHAPES = 4
"""Shapes of a module that stay compiled; each holds a copy of the weights. An edit of many windows needs one or two."""
EXPORTS = 8
"""Exports that stay in the cache folder; the one that was used longest ago is removed."""
COMPILED = 12
"""Compiled shapes that stay in the cache folder (35 MB each for the pocket's U-Net); the oldest one is removed."""
OPTIONS = {
    "INFERENCE_PRECISION_HINT": "f32",
    "ENABLE_CPU_PINNING": False,  # two processes would share one core
}


class OpenVINOModule:
    """A module that OpenVINO may compute in place of torch.

    Args:
        module: Maps float32 tensors to one; its structure does not depend on their values.
        name: Of the module, for messages.
        identity: What decides its structure besides the names and shapes of its weights.
    """

    def __init__(self, module: nn.Module, name: str, identity: object = None):
        self.module, self.name, self.identity = module, name, identity
        self._forget()
        self._failed = False

    def _forget(self) -> None:
        self._weights: list[tuple[int, int]] = []
        self._exports: dict[tuple, Any] = {}
        self._compiled: OrderedDict[tuple, Callable[..., Tensor]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is compiled, which cannot be copied."""
        return {**vars(self), "_weights": [], "_exports": {}, "_compiled": OrderedDict()}

    def prepare(self) -> bool:
        """Whether OpenVINO may compute the module now, to be asked before a series of calls.

        It may where it is installed and not switched off, the weights are frozen and in float32 on the CPU, nothing is compiled by torch,
        and neither gradients nor another precision are wanted.
        """
        usable = (
            not self._failed
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and os.environ.get(SWITCH, "1").lower() not in ("0", "false", "no", "off")
            and find_spec("openvino") is not None
            and not any(part._compiled_call_impl for part in self.module.modules())  # which cannot be traced
            and all(
                weight.device.type == "cpu" and weight.dtype == torch.float32 and not weight.requires_grad
                for weight in self.module.parameters()
            )
        )
        if usable:
            weights = [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in self.module.state_dict().values()]
            if weights != self._weights:  # others were loaded
                self._forget()
                self._weights = weights
        return usable

    def __call__(self, *inputs: Tensor) -> Tensor | None:
        """The module's output; None where OpenVINO has failed, which is logged once."""
        if self._failed:
            return None
        try:
            given = [one.contiguous() for one in inputs]
            key = torch.get_num_threads(), *(tuple(one.shape) for one in given)
            if key not in self._compiled:
                self._compiled[key] = self._compile(given)
                if len(self._compiled) > SHAPES:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return self._compiled[key](given)
        except Exception as error:  # of any release and processor: torch can always do it
            self._failed = True
            self._forget()
            log.warning(
                "OpenVINO cannot compute the %s, so torch does, in about twice the time (%s: %s). %s=0 leaves it to torch at once.",
                *(self.name, type(error).__name__, first_line(error), SWITCH),
            )
            return None

    def _compile(self, inputs: list[Tensor]) -> Callable[[list[Tensor]], Tensor]:
        openvino = _openvino()
        # The tracer fixes the sizes of the latents alone.
        ranks = tuple(one.ndim if i else tuple(one.shape[1:]) for i, one in enumerate(inputs))
        if ranks not in self._exports:
            self._exports[ranks] = self._exported(openvino, inputs, ranks)
        model = self._exports[ranks].clone()
        model.reshape({i: list(one.shape) for i, one in enumerate(inputs)})
        options = OPTIONS | {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
        folder, core = _folder() / "compiled", openvino.Core()  # OpenVINO names its files, and makes damaged ones again
        try:
            compiled = core.compile_model(model, "CPU", options | {"CACHE_DIR": str(folder)})
        except RuntimeError:  # such as of a folder that cannot be written
            compiled = core.compile_model(model, "CPU", options)
        with suppress(FileNotFoundError):  # another process removes them too
            _keep_newest(folder.glob("*.blob"), COMPILED)
        request = compiled.create_infer_request()

        def infer(given: list[Tensor]) -> Tensor:
            return torch.from_numpy(request.infer([one.numpy() for one in given], share_inputs=True)[0].copy())

        return infer

    def _exported(self, openvino: Any, inputs: list[Tensor], ranks: tuple) -> Any:
        """The module as a model of OpenVINO: from the cache folder, or else exported into it."""
        path, model = self._file((openvino.__version__, torch.__version__, self.identity, ranks)), None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(path.with_suffix(".lock")):
                model = _read(openvino, path)
                if model is None:
                    model = self._export(openvino, inputs)
                    _save(openvino, model, path)
        except OSError as error:
            log.warning("OpenVINO: the export of the %s cannot be kept in %s (%s).", self.name, path.parent, error)
        return self._export(openvino, inputs) if model is None else model

    def _export(self, openvino: Any, inputs: list[Tensor]) -> Any:
        log.info("OpenVINO: exporting the %s, once for this machine; it takes seconds to minutes.", self.name)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the tracer: the sizes that it fixes are in the key
            return openvino.convert_model(self.module, example_input=tuple(one.clone() for one in inputs))

    def _file(self, facts: tuple) -> Path:
        """Where the export is kept: its name is a digest of what decides it."""
        digest = hashlib.sha256(repr(facts).encode())
        for name, weight in self.module.state_dict().items():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().contiguous().flatten().view(torch.uint8).numpy().data)
        return _folder() / f"{digest.hexdigest()[:16]}.xml"


def _folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "apa_lightning" / "openvino"


def _keep_newest(files: Iterable[Path], count: int) -> None:
    """Remove all but the newest files, graphs with their weights."""
    for old in sorted(files, key=os.path.getmtime)[:-count]:
        old.unlink(missing_ok=True)
        old.with_suffix(".bin").unlink(missing_ok=True)


def _openvino() -> Any:
    # Its converter reports each use to a server by this package, unless it is absent.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _read(openvino: Any, path: Path) -> Any | None:
    """The export in a file; None if there is none, or it is damaged."""
    if not path.is_file():
        return None
    os.utime(path)
    try:
        return openvino.Core().read_model(path)
    except RuntimeError:
        return None


def _save(openvino: Any, model: Any, path: Path) -> None:
    """Write weights and graph, the latter last, and keep to the number of exports."""
    partial = path.with_name(f"partial-{path.name}")
    try:
        openvino.save_model(model, partial, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(first_line(error)) from error
    os.replace(partial.with_suffix(".bin"), path.with_suffix(".bin"))
    os.replace(partial, path)
    _keep_newest(path.parent.glob("[0-9a-f]*.xml"), EXPORTS)
