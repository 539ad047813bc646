# Each command creates .venv and installs what it needs, once; see tools/setup.py.
#   PYTHON=python3.12   the Python to create .venv with (3.11 or newer)
#   PORT=9000           where `make book` serves
#   CH=04_softmax       one chapter
#   LAB=--no-browser    more options for JupyterLab
#   PAPER=letter        the paper of `make pdf`: a4 or letter
#   PART=sparse         one part of `make bench`: chapters, sparse, linear, decode, flash or costs

PYTHON = python3
PORT = 8000
CH =
LAB =
PART =
PAPER = a4
VENV_PYTHON = .venv/bin/python
SETUP = @command -v $(PYTHON) >/dev/null 2>&1 || { \
	echo "There is no $(PYTHON) here. The book needs Python 3.11 or newer: make $@ PYTHON=..." >&2; exit 1; }; \
	$(PYTHON) tools/setup.py

.PHONY: help book site pdf test check notebooks adopt lab lint test-gpu bench-gpu bench

help:  ## show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

book:  ## build the book and read it in a browser (PORT=8000)
	$(SETUP) book
	@$(VENV_PYTHON) -m tools.site --serve --port $(PORT)

site:  ## build the book only, into _build/html; a warning is an error
	$(SETUP) book
	@$(VENV_PYTHON) -m tools.site

pdf:  ## print the whole book into _build/book.pdf (needs Chromium; PAPER=letter)
	$(SETUP) book test
	@$(VENV_PYTHON) -m tools.pdf --paper $(PAPER)

test:  ## run everything: linter, tests, and every notebook compared with its outputs
	$(SETUP) book run test models
	@$(VENV_PYTHON) -m tools.testing

check:  ## make and check one chapter: make check CH=04_softmax
	@test -n "$(CH)" || { echo "Which chapter? make check CH=04_softmax" >&2; exit 1; }
	$(SETUP) book run test
	@$(VENV_PYTHON) -m tools.check $(CH)

notebooks:  ## execute the chapters that changed and write their notebooks (CH= for one)
	$(SETUP) book run
	@$(VENV_PYTHON) -m tools.notebooks build $(CH)

adopt:  ## take cells edited in Jupyter back into the source: make adopt CH=04_softmax
	@test -n "$(CH)" || { echo "Which chapter? make adopt CH=04_softmax" >&2; exit 1; }
	$(SETUP) book run
	@$(VENV_PYTHON) -m tools.notebooks adopt $(CH)
	@$(VENV_PYTHON) -m tools.notebooks build $(CH)

lab:  ## open the chapters in JupyterLab
	$(SETUP) book run lab
	@$(VENV_PYTHON) -m jupyterlab --ServerApp.root_dir=chapters $(LAB)

lint:  ## check the style of all Python, the chapters' too
	$(SETUP) test
	@$(VENV_PYTHON) -m ruff check .

test-gpu:  ## run the kernels' tests on a GPU, bfloat16 too
	$(SETUP) book run test
	@KERNELS_ON=cuda $(VENV_PYTHON) -m pytest -q tests/test_kernels.py tests/test_kernels_decode.py

bench-gpu:  ## measure the kernels on a GPU against PyTorch's own, and record it
	$(SETUP) book run test
	@$(VENV_PYTHON) -m tools.bench.gpu

bench:  ## measure the library against what PyTorch and others offer, and every chapter (PART=sparse for one table)
	$(SETUP) book run
	@$(VENV_PYTHON) -m tools.bench $(PART)
