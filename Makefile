# Every target sets itself up in .venv. Only Python 3.11+ and make have to be installed; the Kafka tests of `make test`
# also need Java 17+ and Maven.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
# Without users' own uv settings: versions come from constraints.txt alone.
INSTALL := VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --constraint constraints.txt
DEMO := .demo
HEADLESS ?=
KILLS ?=
QUICK ?=
SEED ?=
# File in which results of the chaos suite accumulate; a suite that was stopped continues with what it lacks.
RESULTS ?=
# More options of the chaos suite, e.g. CHAOS='--client librdkafka --store kafka'.
CHAOS ?=
# Processes of the test suite, and more options of pytest, e.g. TESTS='-k kafka'. Each process has a broker of its own;
# four processes fill 4 GiB.
# One more than there are processors: tests wait for brokers and services.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
TESTS ?=
# What the long tests leave behind: outcome and time of each.
KEPT = --junit-xml build/$@/results.xml
# Minutes of the soak, and more options of it, e.g. SOAK='--rate 1000 --out samples.jsonl'.
MINUTES ?=
SOAK ?=
# Options of the fuzz tests, e.g. FUZZ='--inputs 10000 --seed 7'.
FUZZ ?=
# Folder with the public series that are not shipped (training/rillcast_training/research/public_benchmarks.py names
# them), and the number of trainings per data set.
ACCURACY_DATA ?=
SEEDS ?= 1
ACCURACY := .accuracy
ALARMS := build/alarms
TAILS := build/tails
# What the labels of images say.
LABELS = --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
	--build-arg REVISION=$$(git rev-parse HEAD) --build-arg CREATED=$$(date -u +%Y-%m-%dT%H:%M:%SZ)

# Base images of containers set it. The suite starts hundreds of processes, and each would compile all libraries again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster test-image test-s3 test-mlflow test-large test-signals unit chaos chaos-network soak acceptance fuzz fuzz-guided audit check format bench accuracy alarms tails docs picture image constraints clean

help:
	@echo 'make demo         train on real data, export, stream, and watch forecasts live (HEADLESS=1: no page, ends by itself)'
	@echo 'make check        check format, lint and types'
	@echo 'make unit         run the unit tests: some minutes, no network, no broker'
	@echo 'make test         run all tests, on a real Apache Kafka (JOBS=2: processes; TESTS="-k kafka": options of pytest)'
	@echo 'make test-cluster  apply manifests and chart to a real Kubernetes API server (needs Go and kubectl; builds for 20 minutes once)'
	@echo 'make test-image   build the CPU and the training image with buildah, run them with runc (root on Debian; results in build/test-image)'
	@echo 'make test-s3      test the registry of models against a real S3, versitygw (needs Go; builds for some minutes once)'
	@echo 'make test-mlflow  test registry and tracking against a real MLflow server (installs it from PyPI once, 650 MB)'
	@echo 'make test-large   train on 20 million rows whose series lie on the disk, and measure the memory'
	@echo 'make test-signals  end a service by SIGTERM in each phase of its start, and stop one for ten minutes, with both clients'
	@echo 'make format       format the code and fix what the linter can fix'
	@echo 'make docs         build the documentation site in build/site and check its links'
	@echo 'make picture      take the picture of the documentation: the live page of the demo, in a browser (three minutes)'
	@echo 'make bench        run every benchmark, on a broker of its own (QUICK=1: a short run that shows that they work)'
	@echo 'make accuracy     train on public series and score the forecasts (ACCURACY_DATA=folder; SEEDS=5: median and spread)'
	@echo 'make alarms       score alarms on labelled public series (ACCURACY_DATA=folder)'
	@echo 'make tails        print how rare anomalies are on public series (ACCURACY_DATA=folder)'
	@echo 'make chaos        kill, stop and restart every process, and count lost events (KILLS=5 SEED=7: short and repeatable; RESULTS=file: resumable)'
	@echo 'make chaos-network  the same on three brokers behind proxies that delay, drop and reset (needs Go; builds for half a minute once)'
	@echo 'make soak         run a service for two hours, and see what grows (MINUTES=3: short)'
	@echo 'make acceptance   serve raw topics by what `rillcast init` writes, 10,000 streams of clicks among them (ACCURACY_DATA=folder: with public series)'
	@echo 'make fuzz         feed a million hostile inputs to decoders and bundle loader (FUZZ="--inputs 10000 --seed 7")'
	@echo 'make fuzz-guided  the same inputs chosen by the coverage of Rillcast'"'"'s own code (installs atheris from PyPI)'
	@echo 'make audit        look up known vulnerabilities of the pinned versions (asks PyPI)'
	@echo 'make image        build the container images rillcast:cpu, rillcast:cuda and rillcast:training (needs Docker)'
	@echo 'make constraints  resolve all pinned versions again'
	@echo 'make clean        remove .venv, caches and build output'

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Rillcast needs Python 3.11 or newer; set PYTHON=/path/to/python3")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.demo-installed: pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.dev-installed: pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.demo-installed

demo: $(VENV)/.demo-installed
	$(BIN)/rillcast demo --workdir $(DEMO) $(if $(HEADLESS),--headless)

test: $(VENV)/.dev-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 4 --dist loadfile $(TESTS)

test-cluster: $(VENV)/.dev-installed
	$(BIN)/python -m tests.cluster.build
	RILLCAST_TEST_LONG=$@ $(BIN)/python -m pytest $(KEPT) tests/cluster tests/integration/deploy/test_helm.py $(TESTS)

test-image: $(VENV)/.dev-installed
	RILLCAST_TEST_LONG=$@ $(BIN)/python -m pytest $(KEPT) tests/image --timeout 1800 $(TESTS)

test-s3: $(VENV)/.dev-installed
	$(INSTALL) --editable '.[dev,s3]'
	$(BIN)/python -m tests.s3.build
	RILLCAST_TEST_LONG=$@ $(BIN)/python -m pytest $(KEPT) tests/s3 --timeout 1800 $(TESTS)

test-mlflow: $(VENV)/.dev-installed
	RILLCAST_TEST_LONG=$@ $(BIN)/python -m pytest $(KEPT) -k mlflow --timeout 1800 $(TESTS) \
		tests/conformance/test_model_registries.py tests/integration/training/test_tracking.py tests/integration/kafka/test_hot_swap.py

test-large: $(VENV)/.dev-installed
	RILLCAST_TEST_LONG=$@ $(BIN)/python -m pytest $(KEPT) tests/large --timeout 1800 -s $(TESTS)

test-signals: $(VENV)/.dev-installed
	RILLCAST_TEST_LONG=$@ $(BIN)/python -m pytest $(KEPT) tests/integration/kafka/test_sigterm_in_start.py \
		tests/integration/kafka/test_stopped_group.py $(TESTS)

unit: $(VENV)/.dev-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 4 --dist loadfile tests/unit $(TESTS)

chaos: $(VENV)/.dev-installed
	$(BIN)/python -m tests.faults.chaos --all $(if $(RESULTS),--results $(RESULTS)) $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED)) $(CHAOS)

chaos-network: $(VENV)/.dev-installed
	$(BIN)/python -m tests.faults.build
	$(MAKE) chaos CHAOS='--brokers proxied $(CHAOS)'

soak: $(VENV)/.dev-installed
	$(BIN)/python -m tests.faults.soak $(if $(MINUTES),--minutes $(MINUTES)) $(SOAK)

acceptance: $(VENV)/.dev-installed
	$(BIN)/python -m tests.benchmarks.any_topic $(if $(ACCURACY_DATA),--data '$(ACCURACY_DATA)')

fuzz: $(VENV)/.dev-installed
	$(BIN)/python -m tests.fuzz.run $(FUZZ)

fuzz-guided: $(VENV)/.dev-installed
	$(INSTALL) 'atheris==3.0.0'
	$(BIN)/python -m tests.fuzz.run --atheris $(FUZZ)

audit: $(VENV)/.dev-installed
	$(INSTALL) 'pip-audit>=2.10'
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

check: $(VENV)/.dev-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev-installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev-installed
	$(BIN)/python -m tests.benchmarks.suite --folder .bench $(if $(QUICK),--quick)

accuracy: $(VENV)/.dev-installed
	rm -rf $(ACCURACY)
	$(BIN)/python -m rillcast_training.research.public_benchmarks --data '$(ACCURACY_DATA)' --work $(ACCURACY) --seeds $(SEEDS)

alarms: $(VENV)/.dev-installed
	rm -rf $(ALARMS)
	$(BIN)/python -m rillcast_training.research.alarms --data '$(ACCURACY_DATA)' --out $(ALARMS)

tails: $(VENV)/.dev-installed
	rm -rf $(TAILS)
	$(BIN)/python -m rillcast_training.research.tails --data '$(ACCURACY_DATA)' --out $(TAILS)

docs: $(VENV)/.dev-installed
	$(BIN)/python -m mkdocs build --quiet

picture: $(VENV)/.dev-installed
	$(BIN)/python -m tests.support.picture

image:
	for target in cpu cuda training; do docker build --target $$target --tag rillcast:$$target $(LABELS) . || exit; done

constraints: | $(BIN)/uv
	$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --all-extras --universal --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url --output-file constraints.txt

clean:
	rm -rf $(VENV) $(DEMO) $(ACCURACY) .bench build dist pipeline/*.egg-info training/*.egg-info *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
