# `make demo` sets everything up and trains on the embedded data; `make test` sets everything up and runs the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs reliability bench tensorboard pocket-report pocket-proof clean

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m apa_lightning fit --config configs/base.yaml --config configs/training/demo.yaml

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# Kills, damages, fills and starves the program on purpose, and prints the table of docs/reliability.md: about an hour.
reliability: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/reliability --quiet --numprocesses 2 --dist loadfile -m "slow or not slow"

# Speed against an earlier state (BASELINE in benchmarks/run.py) and against peers, as a table: an hour. BENCH=--quick: docs/performance.md
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/run.py $(BENCH)

tensorboard: $(VENV)/.installed
	$(BIN)/tensorboard --logdir runs

# The pocket backbone's shipped parts on held-out clips: needs FluidR3 and MuseScore General (configs/pocket/held_out.yaml).
pocket-report: $(VENV)/.installed
	$(BIN)/python -m apa_lightning render --config configs/pocket/held_out.yaml
	$(BIN)/python -m apa_lightning test --config configs/pocket/report.yaml \
		--data.validation_shards 'runs/pocket/held_out/validation-*.tar'

# Whether the adapter edits, on the same clips and on real recordings, where the folder is there.
APA_EVAL_AUDIO ?= ../shared/eval_audio
pocket-proof: $(VENV)/.installed
	$(BIN)/python -m apa_lightning render --config configs/pocket/held_out.yaml
	$(BIN)/python -m apa_lightning test --config configs/pocket/report.yaml --config configs/pocket/proof.yaml \
		$(if $(wildcard $(APA_EVAL_AUDIO)),--model.recordings '$(APA_EVAL_AUDIO)')

lint: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/ruff check . && $(BIN)/ruff format --diff . && $(BIN)/mypy

# The pages in docs/ as a site in site/. The variable turns off an announcement of mkdocs-material about its successor.
docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) runs edits site
