# Every target sets .venv up first; a second time that takes no time.
export OMP_NUM_THREADS ?= 1
PYTHON_IN_VENV := .venv/bin/python

.PHONY: setup quality format test test-oldest demo clean

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

test: setup
	$(PYTHON_IN_VENV) -m pytest

# The oldest versions of transformers, accelerate, peft and datasets that pyproject.toml claims.
test-oldest:
	bash scripts/test_oldest.sh

demo: setup
	OMP_NUM_THREADS=2 $(PYTHON_IN_VENV) recipes/handwritten_arithmetic/run.py --run_dir runs/demo --clean

# Only what can be made again quickly: other folders of runs/ hold studies and their bases.
clean:
	rm -rf runs/demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
