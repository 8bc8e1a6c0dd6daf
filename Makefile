# Every target sets .venv up first; a second time that takes no time.
export OMP_NUM_THREADS ?= 1
PYTHON_IN_VENV := .venv/bin/python
# Processes that run tests; tests/conftest.py says how they share them.
WORKERS ?= 2
PYTEST := $(PYTHON_IN_VENV) -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

.PHONY: setup quality format test test-fast coverage test-versions demo clean

setup:
	@bash scripts/setup_dev.sh

quality: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: setup
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

# Everything, in random order. The seed is printed first; `make test ARGS="--randomly-seed=N"` repeats it.
test: setup
	$(PYTEST) $(ARGS)

# Everything again, with the lines that no test runs: watching every call costs a good part of the time.
coverage: setup
	$(PYTEST) --cov $(ARGS)

# What a change needs at once; names what has become slow.
test-fast: setup
	$(PYTEST) -m "not slow and not distributed and not trainer" --durations 5 --durations-min 2 $(ARGS)

# The oldest and the newest versions that pyproject.toml claims, each in an environment of its own.
test-versions: setup
	$(PYTHON_IN_VENV) scripts/test_versions.py $(ARGS)

demo: setup
	OMP_NUM_THREADS=2 $(PYTHON_IN_VENV) recipes/handwritten_arithmetic/run.py --run_dir runs/demo --clean

# Only what can be made again quickly: other folders of runs/ hold studies and their bases.
clean:
	rm -rf runs/demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
