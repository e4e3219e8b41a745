# make repro [MANIFEST=your/manifest.csv] · make test · make lab · make audit · make distil · make paper
# for authors of notebooks: make lessons · make docs · make readme
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro audit test lab paper distil lessons docs readme
repro: .venv/installed
	$(if $(MANIFEST),python nbs/stages/bring.py "$$MANIFEST")
	dvc repro
	python nbs/stages/readme.py
	@cat results/table2.md

# several seeds, leakage, what each choice is worth, public benchmarks: about an hour; interrupted, it goes on
audit: .venv/installed
	dvc repro audit/dvc.yaml:report
	python nbs/stages/readme.py
	@cat results/report.md

test: .venv/installed
	ruff check .
	mypy
	pytest

lab: .venv/installed
	jupyter lab nbs

# the paper's 40 frames of 299 px and pretrained weights, on a GPU where there is one; fetches over 500 MB once
PRETRAINED = imagenet soundnet glove-wiki-gigaword-300
paper: .venv/installed
	for name in $(PRETRAINED); do mmdisaster weights fetch $$name || exit; done
	dvc exp run -S features.visual.frames=40 -S features.visual.size=299 -S features.visual.device=auto \
	  -S features.audio.device=auto -S temporal.device=auto -S weights.visual.source=imagenet -S weights.visual.size=299 \
	  -S weights.audio.source=soundnet -S glove.source=glove-wiki-gigaword-300
	@cat results/table2.md

# sound learns from the pictures of the same clips: models/distilled-audio.safetensors, for weights.audio.source=distilled
distil: .venv/installed
	dvc repro audit/dvc.yaml:distil
	@cat results/distil.md

# runs every component notebook and keeps what it shows
lessons: .venv/installed
	nbdev_export
	TQDM_DISABLE=1 jupyter nbconvert --to notebook --execute --inplace --log-level WARN nbs/*.ipynb
	nbdev_clean
	python nbs/stages/api.py

docs: .venv/installed
	python nbs/stages/api.py

readme: .venv/installed
	python nbs/stages/readme.py

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check -r requirements.txt
	.venv/bin/pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
