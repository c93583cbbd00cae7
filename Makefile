# make demo | make test   set up .venv by themselves; the second time they start at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --quiet --durations=15 --numprocesses 2 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow test-slurm lint format overfit evaluate demo-model clean

demo: $(VENV)/.demo
	$(BIN)/python -m hafm_jax.sample --vocal examples/vocal.wav --out mix.wav

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

# Whole chains, and processes that are killed: what would make the tests above take longer than ten minutes.
test-slow: $(VENV)/.dev
	$(PYTEST) -m slow

# Needs SLURM's daemons (Debian: slurm-wlm), which it starts on loopback addresses and ends. Two minutes.
test-slurm: $(VENV)/.dev
	$(BIN)/python -m pytest --quiet tests/slurm/check_slurm.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

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

# Does training work here? One song learnt by heart (configs/overfit.py). The song is its own validation, token for token:
# no noise on the vocal, which differs from split to split.
OVERFIT := build/overfit
overfit: $(VENV)/.dev
	rm -rf $(OVERFIT)
	$(BIN)/python tokenize/synthesize_songs.py --out $(OVERFIT)/songs --num-songs 1 --num-validation 0 --num-test 0 --seconds 5
	cp -r $(OVERFIT)/songs/train $(OVERFIT)/songs/validation
	$(BIN)/python tokenize/extract_tokens.py --songs $(OVERFIT)/songs --tokenizers hafm_jax/demo --vocal-noise 0 --out $(OVERFIT)/tokens
	$(BIN)/python -m hafm_jax.train --config configs/overfit.py --data $(OVERFIT)/tokens --workdir $(OVERFIT)/coarse
	@echo "the band as learnt and as it is: $(OVERFIT)/coarse/sounds/generated-0-200.wav and song-0-200.wav"

# The demo model among anchors and baselines, on 104 clips of songs that it has never heard. Ten minutes.
EVALUATION := build/evaluation
evaluate: $(VENV)/.dev
	$(BIN)/python tokenize/synthesize_songs.py --out $(EVALUATION)/songs --num-songs 512 --num-validation 0 --num-test 128 --seconds 20 --seed 0
	$(BIN)/python -m hafm_jax.evaluate --songs $(EVALUATION)/songs --protocol configs/protocols/synthetic.json --clips 104 --guidance-scales 5 --out $(EVALUATION)/report
	@echo "open $(EVALUATION)/report/index.html"

# The demo model from nothing; `make -j2 demo-model` trains two stages at a time, each on a core, which is faster on two.
# Interrupted, the same command goes on where it was. The allocator keeps what it has, since XLA's steps on a CPU ask for
# the same memory again and again.
DEMO := build/demo
RUN := GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184 $(BIN)/python
# XLA's fused reductions over the batch are slow on a CPU: without them a step of the coarse stage takes 0.78 s, not 0.93.
STAGE_FLAGS := XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT
# The run in $(DEMO)/semantic is done when there is $(DEMO)/.semantic, and so for the others.
TRAIN = $(STAGE_FLAGS) $(RUN) -m hafm_jax.train --data $(DEMO)/tokens --workdir $(DEMO)/$(patsubst .%,%,$(@F)) --config configs/$(1) --config.tokenizers=$(DEMO)/tokenizers

demo-model: $(DEMO)/.semantic_false_history $(DEMO)/.coarse_longer $(DEMO)/.fine
	$(BIN)/python -m hafm_jax.export --workdir $(DEMO)/semantic_false_history $(DEMO)/coarse_longer $(DEMO)/fine --tokenizers $(DEMO)/tokenizers --dtype float16 --out hafm_jax/demo \
		--trained-on "made by this project's synthesiser (make demo-model), 20 s each; no recordings" \
		--limits "bands of the synthesiser's kind: bass, one or two chord instruments, drums and a lead, in one key and tempo. A voice should sing in time, in tune to A = 440 Hz, and the chords' roots on their beats, as the songs' melodies do."

$(DEMO)/.songs: | $(VENV)/.dev
	$(RUN) tokenize/synthesize_songs.py --out $(DEMO)/songs --num-songs 3000 --num-validation 64 --num-test 128 --seconds 20 --seed 0
	touch $@

$(DEMO)/.kmeans: $(DEMO)/.songs
	$(RUN) tokenize/fit_kmeans.py --songs $(DEMO)/songs --features chroma --clusters 500 --hours 0.67 --out $(DEMO)/tokenizers
	touch $@

$(DEMO)/.codec: $(DEMO)/.songs
	$(RUN) tokenize/train_codec.py --songs $(DEMO)/songs --out $(DEMO)/tokenizers
	touch $@

$(DEMO)/.tokens: $(DEMO)/.kmeans $(DEMO)/.codec
	$(RUN) tokenize/extract_tokens.py --songs $(DEMO)/songs --tokenizers $(DEMO)/tokenizers --augment-vocals --out $(DEMO)/tokens
	touch $@

$(DEMO)/.semantic $(DEMO)/.coarse $(DEMO)/.fine: $(DEMO)/.%: $(DEMO)/.tokens
	$(call TRAIN,demo.py:$*)
	touch $@

$(DEMO)/.semantic_false_history $(DEMO)/.coarse_false_history: $(DEMO)/.%_false_history: $(DEMO)/.%
	$(call TRAIN,demo_false_history.py:$*) --config.start_from=$(DEMO)/$*
	touch $@

$(DEMO)/.coarse_longer: $(DEMO)/.coarse_false_history
	$(call TRAIN,demo_longer.py) --config.start_from=$(DEMO)/coarse_false_history
	touch $@

clean:
	rm -rf $(VENV) build mix.wav mix_instrumental.wav

.PHONY: docs
docs: $(VENV)/.dev  # strict about links between pages, files and headings; links to other sites are not followed
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet --conf-dir docs . build/docs
	@echo "open build/docs/index.html"
