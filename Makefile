# make demo   set up .venv and run the whole path on the built-in data set (README.md)
# make test   set up .venv and run the tests
# make venv   the set-up alone; a .venv that is current is reused
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Detectron2 as PyPI has it: the official main of 2024-04-17, whose wheel is tagged for Python 3.10
# but holds plain Python (the compiled part is optional). One that the Python finds already is kept.
DETECTRON2 := sal-detectron2==0.7.2
WHEEL := --no-deps --only-binary=:all: --implementation cp --python-version 3.10

.PHONY: demo test lint venv clean

demo: venv
	$(BIN)/python tools/demo.py --fine-tune

test: venv
	$(BIN)/python -m pytest -q tests

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

venv: $(VENV)/.current

$(VENV)/.current: setup.py constraints.txt Makefile $(wildcard ptq_det/kernels/*.cpp ptq_det/kernels/*.h)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v < (3, 13) else \
		"ptq_det needs Python 3.10 to 3.12, this is %d.%d; name another: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt wheel "setuptools<81"
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt --no-build-isolation -e ".[demo,dev,detectron2,onnx]"
	$(BIN)/python -c 'import detectron2' 2>/dev/null || $(BIN)/pip install \
		--disable-pip-version-check $(WHEEL) \
		--target "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
		$(DETECTRON2)
	touch $@

clean:
	rm -rf $(VENV) output
