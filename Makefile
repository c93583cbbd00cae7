# make demo | make test   set up .venv by themselves; the second time they start at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --quiet --durations=15 --numprocesses 2 --dist worksteal
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow test-processors test-wheel test-slurm lint format overfit evaluate demo-model clean

demo: $(VENV)/.demo
	$(BIN)/hafm sample --vocal examples/vocal.wav --out mix.wav --force

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.dev  # whole chains, large models, processes that are killed
	$(PYTEST) -m slow

# Tests that depend on rounding with the instructions of older processors, then media without ffmpeg.
ROUNDING := $(PYTEST) -m "not slow" tests/model tests/tokenizers tests/metrics tests/test_accompany.py
test-processors: $(VENV)/.dev
	XLA_FLAGS=--xla_cpu_max_isa=AVX2 CXXFLAGS=-march=x86-64-v3 OPENBLAS_CORETYPE=Haswell $(ROUNDING)
	XLA_FLAGS=--xla_cpu_max_isa=SSE4_2 CXXFLAGS=-march=x86-64-v2 OPENBLAS_CORETYPE=Nehalem $(ROUNDING)
	PATH=$(abspath $(BIN)) $(PYTEST) -m "not slow" tests/audio tests/corpus

test-wheel: $(VENV)/.dev  # the wheel alone in an empty environment, by the package registry; six minutes
	$(BIN)/python -m pytest --quiet tests/wheel/check_wheel.py

test-slurm: $(VENV)/.dev  # needs SLURM's daemons (Debian: slurm-wlm), which it starts and ends; two minutes
	$(BIN)/python -m pytest --quiet tests/slurm/check_slurm.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

overfit: $(VENV)/.dev  # does training work here? One song, learnt by heart
	configs/overfit.sh $(BIN)/python

evaluate: $(VENV)/.dev  # the demo model among anchors and baselines, on 104 clips of unseen songs; ten minutes
	$(BIN)/python tokenize/synthesize_songs.py --out build/evaluation/songs --num-songs 512 --num-validation 0 --num-test 128 --seconds 20 --seed 0
	$(BIN)/python -m hafm_jax.evaluate --songs build/evaluation/songs --protocol configs/protocols/synthetic.json --clips 104 --guidance-scales 5 --out build/evaluation/report
	@echo "open build/evaluation/report/index.html"

demo-model: $(VENV)/.dev
	$(MAKE) --file configs/demo.mk

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: setup.py constraints.txt | $(VENV)/bin/python
	@echo "setting up $(VENV): a few minutes, once"
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: setup.py constraints.txt | $(VENV)/bin/python
	@echo "setting up $(VENV) for tests and training: some minutes, once"
	$(PIP) --editable ".[dev]"
	$(PIP) --no-deps encodec  # a test compares with its model, which does without the torchaudio that it asks for
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build mix.wav mix_instrumental.wav mix.json

.PHONY: docs
docs: $(VENV)/.dev  # strict about links between pages, files and headings; links to other sites are not followed
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet --conf-dir docs . build/docs
	@echo "open build/docs/index.html"
