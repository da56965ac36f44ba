"""Audio and pictures for each kind of logger, and the training bar that counts steps."""

import io
import sys

import numpy as np
import pytest
import torch
from fit_tools import PLAN, build, fit
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from apa_lightning.utils import progress as progress_module
from callbacks.loggers import log_audio, log_charts, log_image
from callbacks.parameter_table import ParameterTable
from callbacks.step_progress import StepProgress
from callbacks.validation.audio_samples import AudioSamples
from callbacks.validation.edit_metrics import EditMetrics


class RecordingWandb(WandbLogger):
    """WandbLogger's public methods without the package wandb, which only its __init__ and the media objects need."""

    def __init__(self):
        self.audio, self.images, self.metrics = [], [], []

    def log_audio(self, key, audios, step=None, **kwargs):
        assert isinstance(audios, list) and all(len(value) == len(audios) for value in kwargs.values())
        self.audio.append((key, audios[0].shape, step, kwargs["sample_rate"][0]))

    def log_image(self, key, images, step=None, **kwargs):
        assert isinstance(images, list)
        self.images.append((key, images[0].shape, step))

    def log_metrics(self, metrics, step=None):
        self.metrics.append(metrics)

    name = version = save_dir = experiment = property(lambda self: None)

    def log_hyperparams(self, *_):
        pass

    log_graph = save = finalize = after_save_checkpoint = log_hyperparams


def test_wandb_gets_audio_pictures_and_numbers_from_a_fit(tmp_path):
    logger = RecordingWandb()
    fit(build(), tmp_path, [AudioSamples(PLAN), EditMetrics(PLAN)], steps=2, logger=logger)
    assert {(shape, rate) for _, shape, _, rate in logger.audio} == {((20_480,), 16_000)}
    assert sorted({key.rsplit("/", 1)[1] for key, *_ in logger.audio}) == ["edited", "source", "text_only"]
    assert [step for *_, step in logger.images] == [1, 1, 2, 2]
    assert any("metrics/chroma/edited" in metrics for metrics in logger.metrics)


def test_other_loggers_are_skipped(tmp_path):
    logger = CSVLogger(tmp_path)
    log_audio(logger, "a", torch.zeros(9), 16_000, 1)
    log_image(logger, "a", np.zeros((2, 2, 3), np.uint8), 1)
    log_charts(logger, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_counts_steps(tmp_path, monkeypatch, terminal):
    """A run bounded by max_steps, on a terminal and in a log file (whose lines come at once here)."""
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress_module, "INTERVAL", 0.0)
    fit(build(), tmp_path, [StepProgress(), ParameterTable()], 3, enable_progress_bar=True, num_sanity_val_steps=1)
    shown = stream.getvalue()
    assert "Epoch" not in shown
    assert ("3/3" if terminal else "training: 3 of 3 steps") in shown
    assert "train/loss=" in shown
    assert "validation" in shown


def test_the_table_names_parts_and_trained_parameters(tmp_path, caplog):
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        fit(build(), tmp_path, [ParameterTable()], 1, enable_model_summary=True)
    assert "audio_encoder" in caplog.text and "parameters are trained" in caplog.text
    assert "FLOPs" not in caplog.text
