# make repro [MANIFEST=your/manifest.csv] · make check · make test · make lab · make audit · make distillation · make paper · make fuzz
# for authors of notebooks: make lessons · make docs · make stages · make readme
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro audit check check-code check-tests test fuzz lab paper distillation lessons docs stages readme
repro: .venv/installed
	$(if $(MANIFEST),python tools/bring.py "$$MANIFEST")
	dvc repro
	python tools/readme.py
	@cat results/table2.md

# several seeds, leakage, what each choice is worth, public benchmarks: about an hour; interrupted, it goes on
audit: .venv/installed
	dvc repro audit/dvc.yaml:report
	python tools/readme.py
	@cat results/report.md

# while you work, within 3 minutes on two cores: all but slow lessons, slow tests, and the small pipelines
check: .venv/installed
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target check-code check-tests

check-code:
	ruff check .
	mypy
	python tools/lessons.py --fast

check-tests:
	pytest -m "not slow"

test: .venv/installed
	ruff check .
	mypy
	pytest

# damaged and hostile media, tables, models, weights and settings, each in a process of its own with 60 s and 2 GiB: an hour;
# FUZZ=0.1 a tenth, SEED=7 others, KINDS=weights,models some. What doesn't end in a reading or a clear refusal is kept in .fuzz
FUZZ ?= 1
SEED ?= 2019
KINDS ?= $(shell cd tools && ls fuzz_*.py | sed 's/fuzz_//;s/.py//' | paste -sd, -)
fuzz: .venv/installed
	OMP_NUM_THREADS=1 TQDM_DISABLE=1 python tools/fuzz.py --fraction $(FUZZ) --seed $(SEED) --kinds $(KINDS)

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
distillation: .venv/installed
	dvc repro audit/dvc.yaml:distillation
	@cat results/distillation.md

# runs every component notebook and keeps what it shows
lessons: .venv/installed
	nbdev_export
	find nbs -name '*.ipynb' -not -path 'nbs/stages/*' -not -path '*/.*' -print0 | TQDM_DISABLE=1 xargs -0 \
	  jupyter nbconvert --to notebook --execute --inplace --log-level WARN
	nbdev_clean
	python tools/docs.py

docs: .venv/installed
	python tools/docs.py

# deps and params of stages, and params.yaml's comments and schema, from the notebooks
stages: .venv/installed
	python tools/params.py
	python tools/stages.py

readme: .venv/installed
	python tools/readme.py

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check -r requirements.txt
	.venv/bin/pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
