# Everything runs in .venv, which helpers/install.py makes and keeps up to date; book and slides are
# made in .venv-book.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# Tests and re-executions keep their state apart from yours, and stop what they started. Tests do
# not ask for images on the network.
APART := exec </dev/null; export LAB_HOME="$(CURDIR)/.lab-test"; \
	trap 'status=$$?; for home in "$$LAB_HOME" "$$LAB_HOME"/gw*; do if [ -d "$$home" ]; then \
		LAB_HOME="$$home" python -m helpers down || status=1; fi; done; exit $$status' EXIT;

.PHONY: lab test notebooks book slides lint setup setup-book clean

lab: setup  ## open the course in JupyterLab (make lab ARGS=--no-browser)
	JUPYTER_CONFIG_PATH="$(CURDIR)/helpers/jupyter" python -m jupyterlab --allow-root \
		--ip=127.0.0.1 --port=0 --ServerApp.root_dir="$(CURDIR)" \
		--LabApp.default_url=/lab/tree/notebooks/00-check-your-machine.ipynb $(ARGS)

test: setup setup-book  ## test the helpers, the form of the notebooks, and every notebook
	@$(APART) export LAB_OFFLINE=1; python -m pytest -n 2 --durations 20 \
		--nbval-lax --nbval-current-env tests data/app/tests notebooks

notebooks: setup  ## execute notebooks again and save them (make notebooks ONLY=notebooks/01-…)
	@$(APART) python -m helpers.publish $(ONLY)

book: setup-book  ## make the book: all notebooks as they were saved, in book/index.html
	@.venv-book/bin/python -m helpers.book site

slides: setup-book  ## make slides, in slides/ (make slides ONLY=notebooks/01-…)
	@.venv-book/bin/python -m helpers.book slides $(ONLY)

lint: setup
	ruff check .
	ruff format --check .

setup:
	@$(PYTHON) helpers/install.py

setup-book:
	@$(PYTHON) helpers/install.py book

clean:  ## stop everything and remove what was set up here (the cache stays)
	@for home in .lab .lab-test .lab-test/gw*; do if [ -d $$home ]; then \
		LAB_HOME="$(CURDIR)/$$home" python -m helpers down || \
		{ echo "$$home still records what runs: try 'make setup' first"; exit 1; }; fi; done
	rm -rf .lab .lab-test .venv .venv-book book slides *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -prune -exec rm -rf {} +
