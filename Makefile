# Everything runs in .venv, which helpers/install.py makes and keeps up to date.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# Tests and re-executions keep their state apart from yours, and stop what they started. Tests do
# not ask for images on the network.
APART := exec </dev/null; export LAB_HOME="$(CURDIR)/.lab-test"; \
	trap 'status=$$?; python -m helpers down || status=1; exit $$status' EXIT;

.PHONY: lab test notebooks lint setup clean

lab: setup  ## open the course in JupyterLab (make lab ARGS=--no-browser)
	JUPYTER_CONFIG_PATH="$(CURDIR)/helpers/jupyter" python -m jupyterlab --allow-root \
		--ip=127.0.0.1 --port=0 --ServerApp.root_dir="$(CURDIR)" \
		--LabApp.default_url=/lab/tree/notebooks/00-check-your-machine.ipynb $(ARGS)

test: setup  ## test the helpers, the form of the notebooks, and every notebook
	@$(APART) export LAB_OFFLINE=1; python -m pytest --durations 20 tests data/app/tests && python -m pytest --nbval-lax --nbval-current-env notebooks

notebooks: setup  ## execute notebooks again and save them (make notebooks ONLY=notebooks/01-…)
	@$(APART) python -m helpers.publish $(ONLY)

lint: setup
	ruff check .
	ruff format --check .

setup:
	@$(PYTHON) helpers/install.py

clean:  ## stop everything and remove what was set up here (the cache stays)
	@for home in .lab .lab-test; do if [ -d $$home ]; then \
		LAB_HOME="$(CURDIR)/$$home" python -m helpers down || \
		{ echo "$$home still records what runs: try 'make setup' first"; exit 1; }; fi; done
	rm -rf .lab .lab-test .venv *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -prune -exec rm -rf {} +
