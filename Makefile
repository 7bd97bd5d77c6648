# make quickstart | zoo | test | test-portable | test-slow | lint | docs | doctor | benchmark | clean
PYTHON ?= python3
# further pip arguments for torch and torchvision, e.g. TORCH_ARGS="--index-url <the CPU index of the PyTorch site>"
TORCH_ARGS ?=
VENV := .venv/bin/python
SEED ?= 0
# processes that share the tests, a file at a time
TEST_PROCESSES ?= 2

# matplotlib and the hub libraries keep their caches in the checkout
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
export HF_HOME := $(CURDIR)/.cache/huggingface
export TORCH_HOME := $(CURDIR)/.cache/torch
# downloaded weights and published models; get_model finds the latter from any folder
export FLORENCE_MM_HOME ?= $(CURDIR)/.cache/florence_mm
# waiting threads sleep: spinning ones stop every other process of a small machine
export OMP_WAIT_POLICY := PASSIVE

.PHONY: quickstart zoo test test-portable test-slow lint docs doctor benchmark env clean

env:
	@command -v $(PYTHON) >/dev/null || { echo "cannot find $(PYTHON): install Python 3.10 to 3.13 or name it with PYTHON=..." >&2; exit 2; }
	@$(PYTHON) tools/bootstrap.py --torch-args "$(TORCH_ARGS)"

quickstart: env
	@$(VENV) tools/quickstart.py --seed $(SEED)

# the models of all embedded tasks, trained, tested and published under their names
zoo: env
	@$(VENV) tools/misc/publish_embedded.py

# bad inputs fork thousands of times: a fork copies few page tables where malloc takes huge pages
test: env
	@GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(VENV) -m pytest -n $(TEST_PROCESSES) --dist loadfile

# what computes once more with the plainest instructions and with two threads: no result may hang on the processor
test-portable: env
	@ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 FLORENCE_MM_TEST_THREADS=2 \
		$(VENV) -m pytest tests/test_ops tests/test_models tests/test_engine/test_muon.py \
		-k 'not compile and not export and not every_preset and not openmmlab and not mmdet_models and not tokenizer'

test-slow: env
	@$(VENV) -m pytest -m slow

lint: env
	@$(VENV) -m ruff check . && $(VENV) -m ruff format --check .

# the site with all pages and the reference, strictly: a link that leads nowhere fails it (Python 3.11 or later)
docs: env
	@$(VENV) tools/misc/docs.py
	@NO_MKDOCS_2_WARNING=1 $(VENV) -m mkdocs build --strict

doctor: env
	@$(VENV) -m florence_mm doctor

benchmark: env
	@$(VENV) tools/benchmarks/run.py

clean:
	rm -rf .venv .cache work_dirs data build dist *.egg-info
