# One command per wish. Each sets up what it needs: a virtual environment in .venv, the project
# built and installed into it, and (with apt, as root or through sudo) the system packages that are
# missing.
#
#   make demo           the demonstration: a tree of contexts does real work
#   make test           the whole suite: C tests plain and under sanitizers, then pytest over both cores
#                       (with CI=true, or as make test PYTEST_ARGS=--ansible, Ansible's playbooks as well)
#   make test-quick     what finds most in a minute and a half: the C tests plain, and a part of pytest, over both cores
#   make test-matrix    masters of every installed Python with children of every other, PyPy too
#   make test-ansible   Ansible's long playbook in each way to switch our plugins on, over each core, and the others with
#                       each release of ansible-core for this Python
#   make check-engine   the C tests alone; SANITIZER=address or thread for one kind only
#   make check-musl     the C tests with the C library musl, as on Alpine (Debian; fetches libev's source), and once
#                       without the calls that only Linux has
#   make check-extension  the extension under ASan and UBSan, and with a debug build of Python; CHECKS=thread, valgrind
#                       or dev for others
#   make test-free-threaded  a CPython without a GIL: the tests of the core, warnings as errors, and many threads at once
#                       (THREADS_SECONDS=60 for each of three parts)
#   make flood          4 GiB through a context in the middle, and floods in both directions, over both cores
#   make fuzz           fuzz frames, routes, pickles, the bootstrap, both cores at once, a master, tasks (FUZZ_SECONDS=60 each)
#   make soak           half an hour of everything at once for each core, under kills and stops (SOAK_SECONDS=1800)
#   make bench          the benchmarks beside other libraries; make bench-quick for a short look
#   make recordings     the pictures of the program in the manual, from real runs (root, for hosts of their own)
#   make docs           the manual, as HTML in docs/_build/html; a warning is an error
#   make wheels         an sdist, a wheel per interpreter with libev inside, and a pure wheel, all in dist/
#   make test-packaging builds them twice, checks them, and installs each in a clean environment
#   make lint           checks of format, code and words; make format lays the C sources out
#   make clean          remove everything that was made
#
# PYTHON=/path/to/python3 chooses the interpreter.

SHELL = /bin/sh
BIN = .venv/bin
ENGINE = _mitogen_core/engine
C_FLAGS = -std=c11 -D_GNU_SOURCE '-DMITOGEN_VERSION="0"' -I_mitogen_core -I$(ENGINE)
ROOMS = $(addprefix $(ENGINE)/,base wire sync loop net)
C_FOLDERS = _mitogen_core _mitogen_core/codec $(ROOMS)
C_SOURCES = $(wildcard $(addsuffix /*.c,$(C_FOLDERS)) $(ENGINE)/test/broker.c)
C_FILES = $(wildcard $(addsuffix /*.[ch],$(C_FOLDERS) $(ENGINE)/test))
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 1800

.PHONY: all build demo test test-quick check check-engine check-extension check-musl check-python flood fuzz soak bench bench-quick \
    recordings docs wheels test-packaging test-matrix test-ansible test-free-threaded lint format clean

all: build

build:
	@tools/setup build

demo: build
	@$(BIN)/python examples/demo.py

# The C tests and the Python suite beside each other. The output of the C tests is shown at the end,
# if one of them fails.
BESIDE = @log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
    $(MAKE) --no-print-directory -s -C $(ENGINE) $(1) >"$$log" 2>&1 & engine=$$!; \
    $(BIN)/pytest --core both $(2); python=$$?; \
    if wait $$engine; then echo "the engine: $$(grep -c '^ok' "$$log") tests passed"; else cat "$$log"; python=1; fi; \
    exit $$python

test:
	@tools/setup engine
	@tools/setup test
	$(call BESIDE,check-all,$(PYTEST_ARGS))

test-quick:
	@tools/setup engine
	@tools/setup test
	$(call BESIDE,check-plain,--quick $(PYTEST_ARGS))

check: test

ifdef SANITIZER
check-engine:
	@tools/setup engine
	$(MAKE) -C $(ENGINE) SANITIZER=$(SANITIZER) check
else
check-engine:
	@tools/setup engine
	$(MAKE) -C $(ENGINE) -j$$(getconf _NPROCESSORS_ONLN) check-all
endif

check-musl:
	@tools/setup musl
	$(MAKE) -C $(ENGINE) check CC=musl-gcc VARIANT=musl LDFLAGS=-L$(CURDIR)/build/musl/lib \
	    CPPFLAGS='-isystem $(CURDIR)/build/musl/include'
	$(MAKE) -C $(ENGINE) check VARIANT=portable CPPFLAGS=-U__linux__

check-python:
	@tools/setup test
	@$(BIN)/pytest --core both $(PYTEST_ARGS)

test-matrix:
	@tools/setup matrix
	MITOGEN_TEST_MATRIX=full $(BIN)/pytest --core both $(PYTEST_ARGS) tests/connect/test_matrix.py

test-ansible:
	@tools/setup test
	MITOGEN_TEST_ANSIBLE_ALL=1 MITOGEN_TEST_ANSIBLE_CORES='native pure' $(BIN)/pytest --core native -n 0 --ansible tests/ansible
	for release in $$($(BIN)/python tests/ansible/ansible_env.py --releases); do \
	    echo "ansible-core $$release"; \
	    MITOGEN_TEST_ANSIBLE_CORE="$$release" $(BIN)/pytest --core native -n 0 --ansible \
	        -k 'not same_in_each_way' tests/ansible/test_ansible.py tests/ansible/test_ansible_ends.py || exit 1; \
	done

FREE = .venv-free-threaded/bin
THREADS_SECONDS ?= 60
test-free-threaded:
	@tools/setup free-threaded
	$(FREE)/python -W error tests/load/many_threads.py --seconds $(THREADS_SECONDS)
	MITOGEN_CORE=pure $(FREE)/python -W error tests/load/many_threads.py --seconds $(THREADS_SECONDS)
	$(FREE)/pytest --core native $(PYTEST_ARGS) --ignore tests/core/test_green_threads.py tests/core tests/messages tests/calls \
	    tests/service

CHECKS ?= address debug
check-extension:
	@tools/setup extension
	$(BIN)/python tools/check_extension.py $(CHECKS)

FLOOD_GIB ?= 4
flood:
	@tools/setup build
	$(BIN)/python tests/load/flood.py --core native --gib $(FLOOD_GIB)
	$(BIN)/python tests/load/flood.py --core pure --gib $(FLOOD_GIB)

fuzz:
	@tools/setup fuzz
	$(MAKE) -C $(ENGINE) fuzz FUZZ_SECONDS=$(FUZZ_SECONDS)
	$(BIN)/python tests/fuzz/coverage_fuzz.py codec --seconds $(FUZZ_SECONDS)
	$(BIN)/python tests/fuzz/coverage_fuzz.py bootstrap --seconds $(FUZZ_SECONDS)
	$(BIN)/python tests/fuzz/codec_fuzz.py --sanitize --seconds $(FUZZ_SECONDS)
	$(BIN)/python tests/fuzz/bootstrap_fuzz.py --seconds $(FUZZ_SECONDS)
	$(BIN)/python tests/fuzz/differential_fuzz.py --seconds $(FUZZ_SECONDS)
	$(BIN)/python tests/fuzz/master_fuzz.py --seconds $(FUZZ_SECONDS)
	$(BIN)/python tests/fuzz/task_fuzz.py --seconds $(FUZZ_SECONDS)

soak:
	@tools/setup test
	MITOGEN_CORE=native $(BIN)/python tests/load/soak.py --seconds $(SOAK_SECONDS)
	MITOGEN_CORE=pure $(BIN)/python tests/load/soak.py --seconds $(SOAK_SECONDS)

bench:
	@tools/setup bench
	@$(BIN)/python benchmarks/run.py

bench-quick:
	@tools/setup bench
	@$(BIN)/python benchmarks/run.py --quick

wheels:
	@tools/setup wheels
	$(BIN)/python tools/wheels.py

test-packaging:
	@tools/setup packaging
	$(BIN)/pytest --core any $(PYTEST_ARGS) tests/install/packaging_full.py

recordings:
	@tools/setup test
	$(BIN)/python tools/recordings.py

docs:
	@tools/setup docs
	$(BIN)/sphinx-build -W --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html

lint:
	@tools/setup lint
	$(BIN)/ruff check mitogen tests tools examples benchmarks setup.py
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	$(BIN)/python tools/check_syntax.py
	$(BIN)/python tools/check_layers.py
	$(BIN)/python tools/check_words.py
	$(BIN)/mypy --strict tests/interface/typing_usage.py
	$(BIN)/python tools/check_types.py tests/interface/typing_usage.py tests/interface/typing_wrong.py
	$(BIN)/cppcheck -q --std=c11 --library=posix --library=python --enable=warning,performance,portability \
	    --suppress=constStatement --suppress=missingIncludeSystem --inline-suppr --error-exitcode=1 \
	    $(filter-out -std=%,$(C_FLAGS)) $(C_SOURCES)
	headers=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])') && \
	    printf '%s\n' $(C_SOURCES) | xargs -P $$(getconf _NPROCESSORS_ONLN) -I{} \
	    $(BIN)/clang-tidy --quiet {} -- $(C_FLAGS) -isystem "$$headers"

format:
	@tools/setup lint
	$(BIN)/clang-format -i $(C_FILES)

clean:
	rm -rf .venv .venv-ansible .venv-jupyter .venv-free-threaded .tox build dist docs/_build .fuzz .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find mitogen tests examples benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f _mitogen_core*.so
	if [ -f $(ENGINE)/Makefile ]; then $(MAKE) -C $(ENGINE) clean; fi
