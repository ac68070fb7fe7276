# make run    the main job; options: make run ARGS="--quick"
# make test   the whole test suite; options: make test ARGS="-k dataset"
# make fuzz   strangers' files by the thousand; options: make fuzz ARGS="--seed 7 --cases 5000"
# make arm    the bridge's files on emulated ARM processors; options: make arm ARGS="--graphs 50"
# make ends   the bridge's tests on the oldest and the newest packages that it is installed beside
# make check  lint, format and types
# make clean  remove the environment and what tools left behind; reports in runs/ stay
#
# Each makes .venv first, from the pinned requirements; PYTHON=... names the interpreter.

PYTHON ?=
PYTHONS ?=
ARGS ?=
VENV := .venv/bin/python
STAMP := .venv/.installed

# A .venv whose interpreter is gone does not count, whatever its stamp says.
ifeq ($(shell $(VENV) -c '' 2>/dev/null && echo works),)
$(STAMP): FORCE
endif

.PHONY: run test fuzz arm ends check clean FORCE

run: $(STAMP)
	@$(VENV) -m compare.run $(ARGS)

test: $(STAMP)
	@$(VENV) -m pytest $(ARGS)

fuzz: $(STAMP)
	@$(VENV) -m benchmarks.fuzz $(ARGS)

arm: $(STAMP)
	@$(VENV) -m benchmarks.arm $(ARGS)

ends: $(STAMP)
	@PYTHONS="$(PYTHONS)" sh requirements/ends.sh

check: $(STAMP)
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check .
	$(VENV) -m mypy

clean:
	rm -rf .venv .ends build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml requirements/lock.txt requirements/cuda.txt requirements/install.sh
	@PYTHON="$(PYTHON)" sh requirements/install.sh
