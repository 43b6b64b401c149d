# sluice: `make run` and `make test` are all that a newcomer needs; `make help` lists the rest.

CC       ?= cc
CXX      ?= c++
BUILD    ?= build
PREFIX   ?= /usr/local
JOBS     ?= $(shell nproc)
VERSION  := 0.1.0
SHELL    := /bin/bash

# One level of make decides how many compilers run; those below it share its job server.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif

# --- flags ----------------------------------------------------------------------------------------
# -ffp-contract=off is part of the arithmetic (kernels/arith.h), not a matter of taste.

CFLAGS   ?= -O2 -g
OPENMP   ?= -fopenmp
STANDARD := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wstrict-prototypes -Wmissing-prototypes \
            -ffp-contract=off -pthread -I. -DSLUICE_VERSION=\"$(VERSION)\"
ifdef WERROR
STANDARD += -Werror
endif
LIBS     := -luring -lpcre2-8 -ljansson -lxxhash -lm
TOOL_LIBS := -ledit # of the program alone, not of libsluice.a
COMPILE   = $(CC) $(STANDARD) $(OPENMP) $(CFLAGS) $(SANITIZE)

# One short line for each file; V=1 shows the commands.
ifndef V
say       = @printf '  %-5s %s\n' $1 $2
.SILENT:
endif

# Arithmetic is worth more of the compiler's time.
KERNEL_CFLAGS ?= -O3

# A sanitized build is this Makefile again, with other flags and a folder of its own.
# -march=native -O1: the scalar kernels call fmaf for every product where fma is not inlined.
SANITIZED := KERNEL_CFLAGS="-O1 -march=native" CFLAGS="-O1 -g -fno-omit-frame-pointer"
ASAN      := BUILD=build/asan SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=all" $(SANITIZED)
TSAN      := BUILD=build/tsan SANITIZE="-fsanitize=thread" $(SANITIZED)
COVERAGE  := BUILD=build/coverage SANITIZE="--coverage" CFLAGS="-O1 -g" KERNEL_CFLAGS="-O1 -march=native"
FUZZ      := BUILD=build/fuzz CC=clang OPENMP="-Wno-unknown-pragmas" FLOORS="io src/checkpoint src/text src" \
             SANITIZE="-fsanitize=fuzzer-no-link,address,undefined" CFLAGS="-O1 -g"

# --- what there is --------------------------------------------------------------------------------
# The floors, lowest first: each sees only itself and those before it (tests/tree/floors.sh).

FLOORS   := io cache kernels kernels/cpu src/checkpoint src/text src
VECTORS  := $(foreach isa,avx2 avx512 vnni,$(wildcard kernels/cpu/*_$(isa).c))
SOURCES  := $(wildcard $(FLOORS:=/*.c))
ifeq ($(filter x86_64%,$(shell $(CC) -dumpmachine)),)
SOURCES  := $(filter-out $(VECTORS),$(SOURCES))
endif
OBJECTS  := $(SOURCES:%.c=$(BUILD)/%.o)
TOOLS    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/*.c tools/bench/*.c))

# CUDA is optional: its backend is built where there are sources and a toolkit.
NVCC     ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA     := $(if $(NVCC),$(wildcard kernels/cuda/*.cu))
ifneq ($(CUDA),)
OBJECTS  += $(CUDA:%.cu=$(BUILD)/%.o)
STANDARD += -DSLUICE_CUDA
LIBS     += -L$(dir $(NVCC))../lib64 -lcudart_static -ldl -lrt -lstdc++
endif

# The release build's products lie in the root, where people look for them.
HERE     := $(if $(filter build,$(BUILD)),.,$(BUILD))
SLUICE   := $(HERE)/sluice
LIBRARY  := $(HERE)/libsluice.a

# Tests: a program for each test_*.c, a script for each *.sh, a replay for each fuzz target.
# bench_*.c are programs too: built, so that they keep building, and run by hand.
SUITES   ?= tree io cache kernels src/checkpoint src/text src tools tools/bench fuzz e2e
TEST_C   := $(wildcard $(SUITES:%=tests/%/test_*.c))
PROGRAMS := $(TEST_C:%.c=$(BUILD)/%)
BENCHES  := $(patsubst %.c,$(BUILD)/%,$(wildcard $(SUITES:%=tests/%/bench_*.c)))
SCRIPTS  := $(wildcard $(SUITES:%=tests/%/*.sh))
TARGETS  := $(if $(filter fuzz,$(SUITES)),$(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c)))
REPLAYS  := $(TARGETS:%=$(BUILD)/tests/fuzz/replay_%)

.PHONY: all run test asan tsan golden fuzz coverage install format clean help programs check FORCE
.SECONDARY:
all: $(SLUICE) $(LIBRARY)

comma    := ,

# --- for people -----------------------------------------------------------------------------------

help:
	@printf '%s\n' \
	  'make                  ./sluice and libsluice.a' \
	  'make run              a small model answers, experts streamed; installs what is missing' \
	  'make test             all tests; installs what is missing. SUITES="io src": some of them' \
	  'make asan             all tests under the address and undefined-behaviour sanitizers' \
	  'make tsan             the tests of io under the thread sanitizer' \
	  'make golden DIR=...   compare with golden vectors, print a table' \
	  'make fuzz             fuzz targets for libFuzzer (clang), in build/fuzz' \
	  'make coverage         lines covered by the tests, file by file' \
	  'make format           clang-format every file' \
	  'make install          to PREFIX ($(PREFIX)), below DESTDIR' \
	  'make clean' \
	  '' \
	  'WERROR=1: warnings are errors. JOBS=N: compilers and tests at a time. V=1: all that tests print.'

# So little memory that a third of the experts fit, and they stream.
DEMO     := run -m models/demo --ram 152M --ctx 4096 --temperature 0
export PROMPT ?= What is 27 + 48?
show      = echo '$$ ./sluice $1'; $(SLUICE) $1
run:
	@tools/setup.sh build
	@$(MAKE) --no-print-directory $(SLUICE)
	@$(call show,$(DEMO) -p "What is a sluice?" 2>/dev/null); echo
	@$(call show,$(DEMO) -p "Reverse this list: apple$(comma) river$(comma) stone" 2>/dev/null); echo
	@printf '$$ ./sluice %s -p "%s"\n' '$(DEMO) --mode thinking' "$$PROMPT"; $(SLUICE) $(DEMO) --mode thinking -p "$$PROMPT"

test:
	@tools/setup.sh build test
	@$(MAKE) --no-print-directory check

asan:
	@tools/setup.sh build test
	@$(MAKE) --no-print-directory check $(ASAN) SUITES="$(filter-out tree,$(SUITES))"

tsan:
	@tools/setup.sh build test
	@$(MAKE) --no-print-directory check $(TSAN) SUITES=io

# The program takes any directory of that form; without one it compares with tests/data/golden.
golden:
	@test -n "$(DIR)" || { echo 'make golden DIR=... : the directory of a golden checkpoint' >&2; exit 2; }
	@tools/setup.sh build test
	@$(MAKE) --no-print-directory $(BUILD)/tests/src/test_golden
	$(BUILD)/tests/src/test_golden "$(DIR)"

fuzz:
	@tools/setup.sh build fuzz
	@$(MAKE) --no-print-directory fuzzers $(FUZZ)

coverage:
	@tools/setup.sh build test
	@find build/coverage -name '*.gcda' -delete 2>/dev/null || true
	@$(MAKE) --no-print-directory check $(COVERAGE) SUITES="$(filter-out tree,$(SUITES))"
	@tests/coverage.sh build/coverage

install: all
	install -D -m 755 $(SLUICE) $(DESTDIR)$(PREFIX)/bin/sluice
	install -D -m 644 $(LIBRARY) $(DESTDIR)$(PREFIX)/lib/libsluice.a
	tools/install-headers.sh $(DESTDIR)$(PREFIX) $(PREFIX) "$(VERSION)" "$(LIBS) $(OPENMP) -pthread" "$(CC)"

format:
	git ls-files -co --exclude-standard '*.c' '*.h' '*.cu' '*.cuh' | xargs clang-format -i

clean:
	rm -rf build sluice libsluice.a

# --- building -------------------------------------------------------------------------------------

archive = rm -f $@ && ar rcs $@ $(filter %.o,$^)

$(SLUICE): $(TOOLS) $(LIBRARY)
	$(call say,link,$@)
	$(COMPILE) -o $@ $^ $(LIBS) $(TOOL_LIBS)

$(LIBRARY): $(OBJECTS) $(BUILD)/files
	$(call say,ar,$@)
	$(archive)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,cc,$<)
	$(COMPILE) $(FOLDER_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/kernels/%.o: FOLDER_CFLAGS = $(KERNEL_CFLAGS)

# Loops for machines that have more than the compiler may assume: chosen at run time
# (kernels/cpu/forms.h). Elsewhere than on x86-64 there are none.
AVX2     := -mavx2 -mfma -mf16c
AVX512   := $(AVX2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512
VNNI     := $(AVX512) -mavx512vnni -mavx512vbmi
$(BUILD)/kernels/cpu/%_avx2.o: FOLDER_CFLAGS = $(KERNEL_CFLAGS) $(AVX2)
$(BUILD)/kernels/cpu/%_avx512.o: FOLDER_CFLAGS = $(KERNEL_CFLAGS) $(AVX512)
$(BUILD)/kernels/cpu/%_vnni.o: FOLDER_CFLAGS = $(KERNEL_CFLAGS) $(VNNI)

$(BUILD)/%.o: %.cu $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,nvcc,$<)
	$(NVCC) -std=c++17 -O3 -fmad=false -I. -MMD -MP -c -o $@ $<

# Rewritten only when they would say something else: other flags make everything again, another
# list of files the libraries.
export FLAGS := $(COMPILE) $(KERNEL_CFLAGS) $(VNNI) $(LIBS) $(NVCC)
export FILES := $(OBJECTS) $(TOOLS)
stamp = mkdir -p $(@D); test "$$(cat $@ 2>/dev/null)" = "$$$1" || printf '%s\n' "$$$1" >$@
$(BUILD)/flags: FORCE
	@$(call stamp,FLAGS)
$(BUILD)/files: FORCE
	@$(call stamp,FILES)

# --- tests ----------------------------------------------------------------------------------------
# A test program is its own object, then archives in which the linker finds the rest, the nearest
# first: helpers of its folder (a fake reader there stands in for the real one), helpers of all
# tests, and the program without its main.

check: programs
	@SLUICE=$(SLUICE) CC="$(CC)" CXX="$(CXX)" tests/run.sh $(BUILD) $(JOBS) $(PROGRAMS:%="%") \
	  $(SCRIPTS:%="bash %") $(foreach t,$(TARGETS),"$(BUILD)/tests/fuzz/replay_$t tests/fuzz/corpus/$t")

programs: all $(PROGRAMS) $(BENCHES) $(REPLAYS)

helpers = $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/$1/test_%.c tests/$1/bench_%.c,$(wildcard tests/$1/*.c)))
TEST_LIBS := $(BUILD)/tests/support.a $(BUILD)/tests/all.a

$(BUILD)/tests/all.a: $(OBJECTS) $(filter-out $(BUILD)/tools/main.o,$(TOOLS)) $(BUILD)/files
	@mkdir -p $(@D)
	$(archive)

$(BUILD)/tests/support.a: $(call helpers,support) $(BUILD)/flags
	@mkdir -p $(@D)
	$(archive)

define suite
$(BUILD)/tests/$1/helpers.a: $(call helpers,$1) $(BUILD)/flags
	@mkdir -p $$(@D)
	$$(archive)
$(BUILD)/tests/$1/%: $(BUILD)/tests/$1/%.o $(BUILD)/tests/$1/helpers.a $(TEST_LIBS)
	$$(call say,link,$$@)
	$$(COMPILE) -o $$@ $$^ -lcmocka $$(LIBS) $$(TOOL_LIBS)
endef
$(foreach s,$(filter-out tree fuzz,$(SUITES)),$(eval $(call suite,$s)))

$(REPLAYS): $(BUILD)/tests/fuzz/replay_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/replay.o $(TEST_LIBS)
	$(call say,link,$@)
	$(COMPILE) -o $@ $^ $(LIBS) $(TOOL_LIBS)

# libFuzzer brings its own main.
.PHONY: fuzzers
fuzzers: $(TARGETS:%=$(BUILD)/fuzz_%)
	@printf 'tests/fuzz/corpus/%s\n' $(TARGETS) | sed 's,.*/\(.*\),run it:  build/fuzz/fuzz_\1 &,'
$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(LIBRARY)
	$(call say,link,$@)
	$(CC) $(SANITIZE) -fsanitize=fuzzer -o $@ $^ $(LIBS)

-include $(wildcard $(patsubst %,$(BUILD)/%/*.d,$(FLOORS) tools tools/bench $(SUITES:%=tests/%) tests/support))
