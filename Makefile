# `make book` and `make test` need Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
PRESET ?= smoke
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# Idle OpenMP threads that spin slow every other process down on a shared machine.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help book notebooks test test-installed test-book test-notebooks bench goldens clean

help:
	@echo "make book      run every page at preset $(PRESET) and build the book into build/html"
	@echo "make notebooks write the pages as notebooks for Jupyter and Colab into build/notebooks"
	@echo "make test      formatting, lint, types and every test that needs no GPU"
	@echo "make test-installed   the tests alone, with the $(PYTHON) and the torch that are already there"
	@echo "make test-book what readers see of build/html: needs a Chromium, and npm for axe-core"
	@echo "make test-notebooks   run each notebook from an empty folder with the wheel alone and no network"
	@echo "make bench     images/s of rendering, augmentation, data and decoding"
	@echo "make goldens   rewrite book/goldens from what the pages print now"
	@echo "make clean     remove build/ and $(VENV)/"
	@echo "make book DATA_ROOT=STORE   hands an array store of real images to the pages that take one"
	@echo "PYTHON=python3.12 chooses the interpreter of $(VENV)/; it counts only while $(VENV)/ is not there yet"

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	  f"cxrtut needs Python 3.11 or newer; $(PYTHON) is {v.major}.{v.minor}. Try: make PYTHON=python3.12")'
	@test -x $(PY) || { echo "Making $(VENV)/ with $(PYTHON)"; $(PYTHON) -m venv $(VENV) || { \
	  test ! -f $(VENV)/pyvenv.cfg || rm -rf $(VENV); \
	  echo "$(PYTHON) -m venv failed; on Debian and Ubuntu it needs the package python3-venv" >&2; exit 1; }; }
	@echo "Installing the library and its tools into $(VENV)/ (once; takes some minutes)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[book,test,dicom,inception]"
	@$(PY) -c "import cv2" 2>/dev/null || { \
	  echo "opencv-python needs system libraries for windows that are not here: taking the build without windows"; \
	  $(PY) -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall opencv-python-headless; \
	  $(PY) -c "import cv2"; }
	@touch $@

book: $(INSTALLED)
	$(PY) book/build.py run --preset $(PRESET) $(if $(DATA_ROOT),--data-root "$(DATA_ROOT)")
	$(PY) book/build.py check
	$(PY) book/build.py html

notebooks: $(INSTALLED)
	rm -rf build/notebooks
	$(PY) book/build.py notebooks --out build/notebooks

test: $(INSTALLED)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

# Installs nothing, so that it tests the torch that is there; without the extra `book`, no page.
test-installed:
	$(PYTHON) -m pytest

test-book: $(INSTALLED)
	CXRTUT_BUILT_BOOK=build/html $(PY) -m pytest tests/browser

# Twice: the recorded networks were fetched before, and they cannot be had.
test-notebooks: notebooks
	$(PY) book/trial.py build/notebooks
	$(PY) book/trial.py build/notebooks/papers --without-weights

bench: $(INSTALLED)
	$(PY) -m cxrtut bench

goldens: $(INSTALLED)
	$(PY) book/build.py run --preset smoke
	$(PY) book/build.py check --update

clean:
	rm -rf build $(VENV)
