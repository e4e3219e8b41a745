# make repro [MANIFEST=your/manifest.csv [SPLIT=folds.csv] [REMOTE=1]] [SCHEDULER=local|tcp://…] · make audit [MANIFEST=…] [SCHEDULER=…] · make check · make test · make test-range · make test-buckets
# make book · make book-open · make lab · make distillation · make costs · make bench · make paper
# for authors of notebooks: make lessons · make docs · make stages · make readme · make kill · make fuzz · make book-shots
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONUTF8 := 1
ifdef SCHEDULER
export MMDISASTER_SCHEDULER := $(SCHEDULER)
endif

.PHONY: repro audit status check check-code check-tests test test-range test-buckets book book-open book-shots lab paper distillation costs bench lessons docs stages readme kill fuzz scm
repro: .venv/installed scm
	$(if $(MANIFEST),python tools/bring.py $(if $(REMOTE),--remote) "$$MANIFEST" $(if $(SPLIT),"$$SPLIT"))
	python tools/repro.py
	python tools/readme.py
	@python tools/readme.py show table2.md

# several seeds, leakage, what each choice is worth, public data: one to two hours; interrupted, it goes on. Of a corpus of your
# own what is about its clips
audit: .venv/installed scm
	$(if $(MANIFEST),python tools/bring.py $(if $(REMOTE),--remote) "$$MANIFEST")
	python tools/repro.py audit
	python tools/readme.py
	@python tools/readme.py show audit

# what would run again, of the pipeline and of the audit
status: .venv/installed scm
	python tools/repro.py status

# while you work, minutes on two cores: all but slow lessons, slow tests, and the small pipelines
check: .venv/installed
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target check-code check-tests

check-code:
	ruff check .
	mypy
	python tools/lessons.py --fast

check-tests:
	pytest -m "not slow"

test: .venv/installed .venv/book
	ruff check .
	mypy
	OMP_NUM_THREADS=1 pytest -n logical --maxprocesses=4 --dist loadfile --no-loadscope-reorder

# the wheel at the lowest and the newest versions of its dependencies, under each of Python 3.11, 3.12, 3.13 that is here;
# fetches several GB for each
test-range: .venv/installed
	python tools/ranges.py

# media in buckets, against servers that speak as Amazon's and Google's do
test-buckets: .venv/installed .venv/buckets
	pytest tests/test_remote.py

# damaged and hostile media, tables, models, weights and settings, each in a process of its own with 60 s and 2 GiB;
# FUZZ=0.1 a tenth, SEED=7 others, KINDS=weights,models some. What doesn't end in a reading or a clear refusal is kept in .fuzz
FUZZ ?= 1
SEED ?= 2019
KINDS ?= $(shell cd tools && ls fuzz_*.py | sed 's/fuzz_//;s/.py//' | paste -sd, -)
fuzz: .venv/installed
	OMP_NUM_THREADS=1 TQDM_DISABLE=1 python tools/fuzz.py --fraction $(FUZZ) --seed $(SEED) --kinds $(KINDS)

# chapters, the experiment as it ran last, results and the library as a website that needs no network: build/book/index.html
book: .venv/book
	python tools/book.py

book-open: .venv/book
	python tools/book.py --open

# opens it in a browser, takes pictures and lists what is wrong: make book-shots CHROMIUM=path/to/chromium
book-shots: book
	python tools/shots.py $(CHROMIUM)

lab: .venv/installed
	jupyter lab --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

# the paper's 40 frames of 299 px and pretrained weights, on a GPU where there is one; fetches over 500 MB once
PRETRAINED = imagenet soundnet glove-wiki-gigaword-300
paper: .venv/installed scm
	@test -e .git || { echo "make paper keeps its run beside yours, as an experiment in git: say 'git init' first"; exit 1; }
	for name in $(PRETRAINED); do mmdisaster weights fetch $$name || exit; done
	dvc exp run -S modalities.visual.frames=40 -S modalities.visual.size=299 -S modalities.visual.device=auto \
	  -S modalities.audio.device=auto -S temporal.device=auto -S modalities.visual.weights.source=imagenet \
	  -S modalities.visual.weights.size=299 -S modalities.audio.weights.source=soundnet \
	  -S modalities.text.weights.source=glove-wiki-gigaword-300
	@python tools/readme.py show table2.md

# sound learns from the pictures of the same clips: models/distilled-soundnet.safetensors, for weights.source=distilled
distillation: .venv/installed scm
	python tools/repro.py audit distillation
	@python tools/readme.py show distillation.md

# seconds of processor time behind each row, measured once on this machine, after `make repro`: results/costs.md
costs: .venv/installed
	OMP_NUM_THREADS=1 python tools/costs.py

# ratios, seconds and memory of extraction, networks, Algorithm 1, commands, of 150,000 clips (3 GB of temporary files), and of a GPU where one is;
# PARTS="extraction predict" measures some of it
bench: .venv/installed
	python tools/bench.py $(PARTS)

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

# kills runs at random moments and starts two at once, on small corpora, and compares with undisturbed runs; takes long
KILLS = 100
PAIRS = 20
kill: .venv/installed
	python tools/kill.py kills=$(KILLS) pairs=$(PAIRS)

# an archive of the repository has no .git: DVC wants to be told, in a file of its own that git doesn't see
scm:
	@for project in . audit; do \
	if [ -e .git ]; then ! grep -qs no_scm $$project/.dvc/config.local || dvc --cd $$project config --local --unset core.no_scm; \
	else grep -qs no_scm $$project/.dvc/config.local || dvc --cd $$project config --local core.no_scm true; fi; done

# hashes are those of the index; torch's build for the CPU alone where pip can get it, which saves gigabytes
PINNED = .venv/bin/pip install --disable-pip-version-check --require-hashes --no-deps
.venv/installed: requirements.txt requirements-cpu.txt requirements-torch.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(PINNED) -r requirements.txt
	$(PINNED) --quiet -r requirements-cpu.txt || { \
	  echo "pip can't get torch's build for the CPU alone (see above): taking the index's own build, some gigabytes"; \
	  $(PINNED) -r requirements-torch.txt; }
	.venv/bin/pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	python tools/plots.py
	touch $@

.venv/buckets: .venv/installed requirements-buckets.txt
	$(PINNED) --quiet -r requirements-buckets.txt
	touch $@

.venv/book: .venv/installed requirements-book.txt
	$(PINNED) --quiet -r requirements-book.txt
	touch $@
