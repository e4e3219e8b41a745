# make repro [MANIFEST=your/manifest.csv] · make audit · make test · make lab · make paper; for authors: make lessons · make readme
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro audit test lab paper lessons readme
repro: .venv/installed
	$(if $(MANIFEST),python nbs/stages/bring.py "$(MANIFEST)")
	dvc repro
	python nbs/stages/readme.py
	@cat results/table2.md

# several seeds, leakage, what each choice is worth, public benchmarks: more than an hour; interrupted, it goes on
audit: .venv/installed
	dvc repro audit/dvc.yaml
	python nbs/stages/readme.py
	@cat results/report.md

test: .venv/installed
	ruff check .
	mypy
	pytest

lab: .venv/installed
	jupyter lab nbs

# the paper's 40 frames at 299 px; add WEIGHTS='-S weights.visual.source=FILE -S weights.audio.source=FILE' for pretrained networks
paper: .venv/installed
	dvc exp run -S features.visual.frames=40 -S features.visual.size=299 -S weights.visual.size=299 $(WEIGHTS)
	@cat results/table2.md

# runs every component notebook and keeps what it shows
lessons: .venv/installed
	nbdev_export
	TQDM_DISABLE=1 jupyter nbconvert --to notebook --execute --inplace --log-level WARN nbs/*.ipynb
	nbdev_clean

readme: .venv/installed
	python nbs/stages/readme.py

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check -r requirements.txt
	.venv/bin/pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
