# make quickstart   set up, train an embedder on real text, fuse it with BM25, compare with the base
# make serve        serve the quick start's embedder and search its held-out documents, on port 8001
# make index        put these documents into a vector database in outputs/store, for make serve
# make test         set up, run the tests
# make test-fast    those that start no process, no server and no training run, and take no seconds
# make coverage     run the tests and tell which lines no test reaches; below 95 % is an error
# make check        set up, ruff, mypy, and a search for secrets
# make audit        known weaknesses of the pinned packages (asks pypi.org)
# make clean        remove .venv, data/docstrings, the quick start's model and all caches
#
# What is finished is not done again. Another Python: make PYTHON=/path/to/python3.12 ...

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# The first of these that is 3.11 or newer and can make virtual environments.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)

BIN := .venv/bin
READY := .venv/ready
DEV := .venv/ready-dev
DATA := data/docstrings/heldout/qrels/test.tsv
# The last file that each step writes.
EMBEDDER := outputs/embedding_contrastive/README.md
FUSION := outputs/embedding_contrastive/fusion.json
TABLE := outputs/quickstart.txt

# Texts cut as in training.
MEASURE := --bf16 --document_max_length 96

.PHONY: quickstart serve index test test-fast coverage check audit setup clean

quickstart: $(TABLE)
	@cat $(TABLE)
	@echo "The model is in $(dir $(EMBEDDER))"

STORE := outputs/store

# Once there is a store, its documents are searched.
serve: $(FUSION)
	$(BIN)/python scripts/serve.py --model $(dir $(EMBEDDER)) $(if $(wildcard $(STORE)/*), \
		--store $(STORE) --allow_writes true, --corpus data/docstrings/heldout/corpus.jsonl)

index: $(FUSION)
	$(BIN)/python scripts/index.py --model $(dir $(EMBEDDER)) --corpus data/docstrings/heldout \
		--store $(STORE)

# A file's tests share what they start. tests/conftest.py sorts the files, longest first.
PYTEST := -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

RUN := $(BIN)/python
# Compiled modules are kept: hundreds of processes start.
test test-fast: export PYTHONDONTWRITEBYTECODE :=

test: $(DEV)
	$(RUN) $(PYTEST)

test-fast: $(DEV)
	$(BIN)/python $(PYTEST) -m 'not slow'

# Processes that the tests start are measured too (setup.cfg).
coverage: $(DEV)
	$(BIN)/coverage erase
	$(MAKE) test RUN='$(BIN)/coverage run'
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook

# Strict: a package that cannot be audited is a failure.
audit: $(READY)
	$(BIN)/python -m pip install --constraint constraints.txt '.[audit]'
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

setup: $(DEV)

clean:
	rm -rf .venv build *.egg-info data/docstrings $(dir $(EMBEDDER)) $(TABLE:.txt=.*)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[quickstart,lancedb]'
	touch $@

$(DEV): $(READY)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[quickstart,dev]'
	touch $@

# Order only (|): a newer recipe or package does not throw away what was trained.
$(DATA): | $(READY)
	$(BIN)/python scripts/prepare_data.py docstrings --output_dir data/docstrings --overwrite

# The table at the end measures more than an eval_file would.
$(EMBEDDER): | $(DATA)
	$(BIN)/accelerate launch --config_file configs/accelerate/one_process.yaml scripts/train.py \
		--config configs/embedding_contrastive.json --eval_file null --overwrite true

# Training deletes it; an evaluation touches the model's card.
$(FUSION): | $(EMBEDDER)
	$(BIN)/python scripts/fuse.py --model $(dir $(EMBEDDER)) --data data/docstrings/dev_pairs.jsonl $(MEASURE)

# --checkpoint_dir compares a model with what its run began with.
$(TABLE): $(EMBEDDER) | $(FUSION)
	$(BIN)/python scripts/evaluate.py --checkpoint_dir $(dir $(EMBEDDER)) --data data/docstrings/heldout $(MEASURE) > $@
