# The demo model from nothing, a rule for each step; `make demo-model` calls it. A step is done when its file
# build/demo/.STEP is there: after an interruption the same command resumes. `make -j2 demo-model` trains two stages at a
# time, one on each core, which is faster on two cores.

PYTHON := .venv/bin/python
DEMO := build/demo
# XLA's steps on a CPU allocate the same memory again and again: the allocator keeps it.
RUN := GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184 $(PYTHON)
# XLA's fused reductions over the batch are slow on a CPU (docs/notebook.md).
STAGE_FLAGS := XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT
comma := ,
# The run `coarse,2` of configs/demo.py is in $(DEMO)/coarse_2.
TRAIN = $(STAGE_FLAGS) $(RUN) -m hafm_jax.train --config configs/demo.py:$(subst _,$(comma),$*) --data $(DEMO)/tokens \
	--config.tokenizers=$(DEMO)/tokenizers --workdir $(DEMO)/$*

demo-model: $(DEMO)/.semantic_2 $(DEMO)/.coarse_3 $(DEMO)/.fine
	$(PYTHON) -m hafm_jax.export --workdir $(DEMO)/semantic_2 $(DEMO)/coarse_3 $(DEMO)/fine \
		--tokenizers $(DEMO)/tokenizers --dtype float16 --out hafm_jax/demo \
		--trained-on "made by this project's synthesiser (make demo-model), 20 s each; no recordings" \
		--limits "bands of the synthesiser's kind: bass, one or two chord instruments, drums and a lead, in one key and tempo. A voice should sing in time and in tune, and the chords' roots on their beats, as the songs' melodies do."
.PHONY: demo-model

$(DEMO)/.songs:
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
	$(TRAIN)
	touch $@

$(DEMO)/.semantic_2: $(DEMO)/.semantic
$(DEMO)/.coarse_2: $(DEMO)/.coarse
$(DEMO)/.coarse_3: $(DEMO)/.coarse_2
$(DEMO)/.semantic_2 $(DEMO)/.coarse_2 $(DEMO)/.coarse_3: $(DEMO)/.%:
	$(TRAIN) --config.start_from=$(<:$(DEMO)/.%=$(DEMO)/%)
	touch $@
