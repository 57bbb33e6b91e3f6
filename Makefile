# Two commands, each enough on a machine with Python 3.9 or later and a package index; a C compiler is optional.
#
#   make demo               trains Mamba YOLO-T from scratch on a small composed data set, on the CPU, and draws the results
#   make demo DATA=folder   the same on your own data, in COCO's, YOLO's or VOC's format (docs/data.md)
#   make test               lint, types and the whole test suite
#
# Their parts, and the rest:
#
#   make install            makes .venv with the package (editable) and all that demo and tests need; installs again after a
#                           change of the requirements, the packaging or the C
#   make lint               ruff and mypy alone
#   make docs               builds the site of the documentation: site/index.html, readable without a server
#   make wheels             builds an sdist and wheels for Linux (x86_64, aarch64) and for everywhere else into dist;
#                           needs gcc-aarch64-linux-gnu (on aarch64: gcc-x86-64-linux-gnu)
#   make try-wheels         installs them in an empty environment and uses them; the other machine's runs in an emulator
#   make stranger           uses the wheel as a stranger would, on one data set in three formats, from check-data to an exported
#                           file; all results must be the same in each; some 15 minutes (DATA=folder: on yours)
#   make release-weights    trains Mamba YOLO-T on BCCD (BCCD=folder) and writes its weights for a release, in float16, into dist;
#                           20 to 60 minutes
#   make test-matrix        tests the wheel with every supported set of libraries: the table of docs/compatibility.md
#   make test-distributed   trains under Slurm and on two hosts while processes and networks fail; as root, on Debian
#   make clean              removes .venv and build products; what was trained (work_dirs) stays
#   make help               this text
#
# Variables:
#
#   PYTHON=python3          the Python that makes .venv
#   TORCH='...'             what pip installs first, instead of the tested PyTorch. On Linux the package index usually serves
#                           PyTorch's CUDA build of several GB; if you know an index of CPU builds:
#                           make demo TORCH='torch==2.13.0 --index-url <address>'
#   JOBS=2                  processes of the tests
#   PIP_ARGS='...'          arguments for the pip of try-wheels, stranger and test-matrix, such as --extra-index-url
#   PYTEST_ARGS='...'       arguments for pytest: make test PYTEST_ARGS='tests/test_ops -x'
#   DATA=folder             your data for demo and stranger, as above
PYTHON ?= python3
TORCH ?=
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --no-compile -c $(VENV)/constraints.txt
# Libraries are compiled to bytecode at their first import and not in every process again, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test lint docs wheels try-wheels stranger release-weights test-matrix test-distributed install clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

demo: $(STAMP)
	$(BIN)/python tools/demo.py $(if $(DATA),--data '$(DATA)')

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(STAMP)
	$(INSTALL) --quiet -r requirements/docs.txt
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs -d $(VENV)/site . site
	@echo site/index.html

wheels: $(STAMP)
	$(BIN)/python .ci/wheels.py

try-wheels: $(STAMP)
	$(BIN)/python .ci/try_wheels.py $(PIP_ARGS)
	$(BIN)/python -m pytest -rs tests/test_ops/test_aarch64.py

stranger: $(STAMP)
	$(BIN)/python .ci/stranger.py $(if $(DATA),--data '$(DATA)') $(PIP_ARGS)

release-weights: $(STAMP)
	$(BIN)/python .ci/release_weights.py

test-matrix: $(STAMP)
	$(BIN)/python .ci/matrix.py $(PIP_ARGS)

test-distributed: $(STAMP)
	tests/distributed/run.sh

install: $(STAMP)

$(STAMP): setup.py pyproject.toml $(wildcard requirements/*.txt) $(wildcard mmmamba/ops/cpu/*.[ch] mmmamba/ops/cpu/build_native.py) \
		$(wildcard $(addprefix mmmamba/deploy/native/,*.[ch] *.cpp build.py))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' \
		|| { echo "error: $(PYTHON) is older than Python 3.9; name another with 'make PYTHON=...'"; exit 1; }
	@echo '== 1/3 virtual environment and PyTorch'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		sed '/^torch==/d' requirements/constraints.txt > $(VENV)/constraints.txt; \
		grep '^torch==' requirements/constraints.txt > $(VENV)/torch.txt; \
	else \
		echo 'The tested versions need Python 3.11 or later: taking whichever versions fit this Python'; \
		: > $(VENV)/constraints.txt; echo torch > $(VENV)/torch.txt; \
	fi
	$(INSTALL) $(or $(TORCH),-r $(VENV)/torch.txt) 'setuptools>=70.1'
	@echo '== 2/3 mmmamba and its requirements'
	$(INSTALL) --no-build-isolation -e '.[lite,demo,tests]'
	@echo '== 3/3 checks'
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
		version=$$($(PIP) show opencv-python | sed -n 's/^Version: //p'); \
		echo "opencv-python $$version misses a system library (often libGL.so.1): installing opencv-python-headless instead"; \
		$(PIP) uninstall --yes --quiet opencv-python opencv-python-headless; \
		$(PIP) install --quiet --no-deps opencv-python-headless==$$version; }
	@$(BIN)/python -m mmmamba.deploy.native.build || echo 'exported files run in OpenVINO with --portable alone'
	$(BIN)/python -m mmmamba.ops.info
	@touch $@

clean:
	rm -rf $(VENV) build dist site mmmamba.egg-info mmmamba/.mim .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f mmmamba/ops/cpu/*.so mmmamba/ops/cpu/build_log.txt mmmamba/deploy/native/*.so mmmamba/deploy/native/*.txt
