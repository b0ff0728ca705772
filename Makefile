# make demo | poster | test | check: each sets up .venv first when it is missing. Needs Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
# one thread per test process: more would fight over the cores
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: setup demo poster poster-real bench bench-real test test-slow check docs site dist format lock clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing PyTorch and the rest into .venv (several GB, a few minutes)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,media,report,sklearn,text,timm,torchjd,ray,tune,hub,export,lightning,lora,tensorboard]'
	@touch $@

demo: setup
	$(BIN)/counterpoise benchmark --data digits --data.audio_noise 1.0 --data.image_noise 0.4 \
		--methods Unimodal,Joint,MLA,IGM,auto --seeds 0,1,2 --jobs $(JOBS) \
		--epochs 16 --optimizer.lr 0.05 --out runs/demo
	@echo "Open runs/demo/report.html"

# every study of docs/studies.md on the embedded data, on one page; 10 minutes on 2 idle cores, goes on when
# started again
poster: setup
	OMP_NUM_THREADS=1 $(BIN)/counterpoise study all --data digits --epochs 16 --optimizer.lr 0.05 --seeds 0,1,2 \
		--jobs $(JOBS) --pretrained.pretraining alone --landscape.samples 256 --progress false --out runs/poster

# the studies of docs/benchmarks on real data; SOURCE as below
poster-real: setup
	JOBS=$(JOBS) benchmarks/real/poster.sh $(SOURCE) runs/real

# the comparison of docs/benchmarks; SOURCE holds the raw data (benchmarks/real/README.md)
bench-real: setup
	JOBS=$(JOBS) benchmarks/real/run.sh $(SOURCE) runs/real

# writes docs/performance.md; leave the machine idle meanwhile; IGM is a checkout of IGM's released code
bench: setup
	for script in overhead modern bf16 small startup loading feeding growth memory processes; do \
		$(BIN)/python benchmarks/$$script.py || exit 1; done
ifdef IGM
	$(BIN)/python benchmarks/released.py $(IGM)
else
	@echo "benchmarks/released.py was left out: make bench IGM=path/to/checkout of github.com/njustkmg/IJCAI25-IGM"
endif

test: setup
	$(PYTEST) -n $(JOBS) --dist worksteal -m "not slow and not gpu"

test-slow: setup
	$(PYTEST) -n $(JOBS) --dist worksteal -m "slow or gpu"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: setup
	$(BIN)/python docs/generate.py

# the site in build/site, notebooks executed (kept in build/notebooks until their code changes); warnings are errors
site: .venv/site
	MPLBACKEND= OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -b html docs build/site

.venv/site: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

# wheel and source distribution; the wheel runs README's examples in an environment that has nothing else
dist: setup
	rm -rf dist build/installed build/examples
	$(BIN)/python -m hatchling build
	$(PYTHON) -m venv build/installed
	build/installed/bin/python -m pip install --quiet --constraint constraints.txt "$$(echo dist/*.whl)[media,report,sklearn]"
	mkdir -p build/examples
	cd build/examples && ../installed/bin/python ../../docs/run_readme.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# what is installed now becomes what is tested; the CUDA packages are pinned by torch itself
lock: .venv/site
	$(BIN)/python -m pip freeze --exclude-editable | grep -v -i -E '^(nvidia|cuda|triton)' > constraints.txt

clean:
	rm -rf .venv runs build dist
