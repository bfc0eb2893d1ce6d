# Every target sets up what it needs under .venv, so that any of them may be the first.
#   make demo     train on the bundled episodes for MINUTES, then show the dreams in one page
#   make test     the test suite          make lint   ruff and mypy
#   make docs     the manual, in site/    make bench  speed, memory and quality beside DreamerV3 (half an hour)
#   make reliability   kills, faults and hostile files: a sample of 20 minutes (COUNT=full, SEED=n)
#   make clean    remove what the other targets built, runs kept

PYTHON  ?= python3
MINUTES ?= 5
DATA    ?= bundled:cartpole
RUN     ?= runs/demo
COUNT   ?= sample
SEED    ?= 0

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: demo test lint docs pictures bench reliability clean

# Run again, the demo goes on with its run: up to a larger MINUTES, or straight to the pictures.
demo: $(VENV)/.demo
	@if [ -d $(RUN)/checkpoint ] || [ -d $(RUN)/checkpoint.old ]; then \
		echo "$(RUN) is there: going on with it up to $(MINUTES) minutes of training (to start afresh: rm -r $(RUN))"; \
		$(BIN)/aime train tiny --data $(DATA) --out $(RUN) --minutes $(MINUTES) --resume; \
	else \
		if [ -e $(RUN)/config.yaml ]; then echo "$(RUN) has no checkpoint: starting afresh"; rm -r $(RUN); fi; \
		$(BIN)/aime train tiny --data $(DATA) --out $(RUN) --minutes $(MINUTES); \
	fi
	@$(BIN)/aime evaluate $(RUN) --data $(DATA) --context 5 --horizon 45 --clips 28 --out $(RUN)/evaluation.json
	@$(BIN)/aime predict $(RUN) --data $(DATA) --out $(RUN)/dream.webp
	@$(BIN)/aime report $(RUN) --data $(DATA)

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

# the picture of the README, from the run that `make demo` left
pictures: $(VENV)/.demo
	$(BIN)/aime predict $(RUN) --data $(DATA) --out docs/pictures/dream.webp

# What has been measured into runs/bench is not measured again.
bench: $(VENV)/.bench
	$(BIN)/python benchmarks/bench.py --data $(DATA) --minutes $(MINUTES)

# What runs/reliability/rows.jsonl holds for this seed is not tried again.
reliability: $(VENV)/.dev
	$(BIN)/python -m reliability.run --count $(COUNT) --seed $(SEED) --document docs/reliability.md

clean:
	rm -rf $(VENV) site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Debian without python3-venv has the venv module but no bundled pip: then the system's pip puts one in.
$(VENV)/.made:
	@echo "setting up $(VENV)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 13) else \
		"Python 3.11 or 3.12 is needed, found %d.%d: make PYTHON=python3.11" % v)'
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python install --quiet pip; }
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing AIME and its dependencies (a minute or two)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "installing the tools for tests and checks"
	@$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.demo
	@$(PIP) -e '.[docs]'
	@touch $@

$(VENV)/.bench: $(VENV)/.demo
	@echo "installing the models to compare with"
	@$(PIP) -e '.[bench]'
	@touch $@
