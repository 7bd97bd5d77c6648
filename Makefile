# make quickstart | test | test-slow | lint | doctor | benchmark | clean
PYTHON ?= python3
# further pip arguments for torch alone, e.g. TORCH_ARGS="--index-url <the CPU index of the PyTorch site>"
TORCH_ARGS ?=
VENV := .venv/bin/python
SEED ?= 0

# matplotlib and the hub libraries keep their caches in the checkout
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
export HF_HOME := $(CURDIR)/.cache/huggingface
export TORCH_HOME := $(CURDIR)/.cache/torch
# waiting threads sleep: spinning ones stop every other process of a small machine
export OMP_WAIT_POLICY := PASSIVE

.PHONY: quickstart test test-slow lint doctor benchmark env clean

env:
	@command -v $(PYTHON) >/dev/null || { echo "cannot find $(PYTHON): install Python 3.10 to 3.13 or name it with PYTHON=..." >&2; exit 2; }
	@$(PYTHON) tools/bootstrap.py --torch-args "$(TORCH_ARGS)"

quickstart: env
	@$(VENV) tools/quickstart.py --seed $(SEED)

test: env
	@$(VENV) -m pytest

test-slow: env
	@$(VENV) -m pytest -m slow

lint: env
	@$(VENV) -m ruff check . && $(VENV) -m ruff format --check .

doctor: env
	@$(VENV) -m florence_mm doctor

benchmark: env
	@$(VENV) tools/benchmarks/run.py

clean:
	rm -rf .venv .cache work_dirs data build dist *.egg-info
