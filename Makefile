# make demo            build everything, fetch a small model, print its continuation of a prompt
# make test            every test: the C programs, the installed files, memory errors, cargo test
# make bench           speed of the models on this machine, and of the kernels beside its limits
# make bench-peers     the models against llama.cpp, which it builds first (CMake and a C++ compiler)
# make lint            formatting and lints
# make install PREFIX= what `make` has built (if something is missing it builds): libraries, header, CMake and pkg-config
#                      files, programs, licences (DESTDIR is respected)
# make header          rewrite include/llm.h and include/llm_api.json from src/capi
# make clean           remove build/ (cargo clean removes target/)
#
# Rust is the one thing that must be there; scripts/setup gets the rest, or says what to install.

PREFIX ?= /usr/local
CARGO ?= cargo
# Make's own default is the same; the environment may say another.
CC ?= cc
CFLAGS ?= -O2
LD ?= ld
AR ?= ar
OBJCOPY ?= objcopy
# What the programs promise to compile under.
STRICT = -std=c99 -Wall -Wextra -Wpedantic -Werror
PROMPT ?= Once upon a time, in a quiet village,

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# While the major version is 0, each minor version is an ABI of its own (build.rs says the same to the linker).
ABI := $(shell echo $(VERSION) | sed -E 's/^(0\.[0-9]+|[0-9]+).*/\1/')

# An installation inside build/: `make install` copies it, the tests use it, nothing in it knows where it is.
STAGE := build/stage
LIB := $(STAGE)/lib
SHARED := $(LIB)/libllm.so.$(VERSION)
STATIC := $(LIB)/libllm.a
HEADER := $(STAGE)/include/llm.h $(STAGE)/include/llm_api.json
CONFIG := $(LIB)/cmake/llm/llmConfig.cmake $(LIB)/cmake/llm/llmConfigVersion.cmake $(LIB)/pkgconfig/llm.pc
PROGRAMS := $(patsubst examples-c/%.c,$(STAGE)/bin/llm-%,$(filter-out examples-c/common.c,$(wildcard examples-c/*.c)))
LICENSES := $(addprefix $(STAGE)/share/doc/llm/,LICENSE-APACHE LICENSE-MIT THIRD-PARTY.md)
INSTALLED := $(PROGRAMS) $(SHARED) $(STATIC) $(HEADER) $(CONFIG) $(LICENSES)
# The libraries that a static libllm needs, as rustc names them.
NATIVE := $(TARGET)/release/libllm.native

# $(call fill,FILE): a file of cmake/ with its blanks filled in. Compilers add the library that unwinds the stack themselves,
# the shared one or, for a program that is linked with -static, the static one.
fill = native=$$(sed 's/-lgcc_s *//' $(NATIVE)); sed -e 's/@VERSION@/$(VERSION)/g' -e 's/@ABI@/$(ABI)/g' \
	-e "s/@NATIVE@/$$native/g" -e "s/@NATIVE_LIST@/$$(echo "$$native" | tr -s ' ' ';')/g" $(1)

.PHONY: all demo test bench bench-peers lint install header clean models test-programs test-install test-memory FORCE
.DELETE_ON_ERROR:
# Cargo uses all processors by itself, and scripts/setup must not run twice at a time.
.NOTPARALLEL:

all: $(INSTALLED)

demo: models-smollm2 all
	@printf '\n%s' '$(PROMPT)'
	@$(STAGE)/bin/llm-generate -m models/SmolLM2-135M-Instruct.Q4_1.gguf -p '$(PROMPT)' -n 64 --temp 0

# Last comes cargo test, so that its verdict stands at the end.
test: test-programs test-install test-memory
	$(CARGO) test

test-programs: models all
	@scripts/setup python
	python3 tests/programs.py $(STAGE)/bin models

test-install: all
	@scripts/setup packaging
	MAKE='$(MAKE)' CC='$(CC)' sh tests/install.sh

test-memory: all
	@scripts/setup memory
	CARGO='$(CARGO)' sh tests/memory.sh $(STAGE)/bin $(TARGET)

bench: models all
	@set -e; for model in models/*.gguf; do echo "$$model"; $(STAGE)/bin/llm-bench -m $$model; done
	@set -e; for kv in f16 q8_0; do for depth in 0 1024 4096; do echo "SmolLM2 behind $$depth tokens, $$kv"; \
		$(STAGE)/bin/llm-bench -m models/SmolLM2-*.gguf -p 0 -n 32 -d $$depth --kv $$kv; done; done
	@$(STAGE)/bin/llm-bench -m models/SmolLM2-*.gguf -p 4096 -n 0 -r 2
	$(CARGO) bench --bench '*'

bench-peers: models all
	@scripts/setup packaging
	@benches/peers.py

lint:
	@scripts/setup rust-lints python
	scripts/third-party --check
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps

# What is there is installed as it is, since root may have no Rust.
install: | $(filter clean all,$(MAKECMDGOALS))
	@for file in $(INSTALLED); do [ -e "$$file" ] || exec $(MAKE) all; done
	mkdir -p '$(DESTDIR)$(PREFIX)'
	cp -R --remove-destination $(STAGE)/. '$(DESTDIR)$(PREFIX)'

header:
	LLM_BLESS=1 $(CARGO) test --test capi_header

clean:
	rm -rf build

models:
	@scripts/setup python
	@scripts/fetch-models

models-%:
	@scripts/setup python
	@scripts/fetch-models $*

# Cargo knows whether there is something to do; what depends on these is made anew only if they changed.
# (A Rust library made with the two would keep functions in them that nobody calls.)
$(TARGET)/release/libllm.so: FORCE
	@scripts/setup build
	$(CARGO) rustc --release --lib --crate-type cdylib,staticlib -- --print native-static-libs=$(NATIVE)

$(TARGET)/release/libllm.a $(NATIVE): $(TARGET)/release/libllm.so ;

$(SHARED): $(TARGET)/release/libllm.so
	@mkdir -p $(@D)
	rm -f $(LIB)/libllm.so*
	cp $< $@
	ln -sf $(@F) $(LIB)/libllm.so.$(ABI)
	ln -sf libllm.so.$(ABI) $(LIB)/libllm.so

# One object that shows only our functions: two Rust libraries in one program would else define the same names twice.
$(STATIC): $(TARGET)/release/libllm.a
	@mkdir -p $(@D)
	$(LD) -r --whole-archive --force-group-allocation $< -o build/llm.o
	$(OBJCOPY) -w --keep-global-symbol='llm_*' -R .llvmbc -R .llvmcmd --strip-debug build/llm.o
	rm -f $@
	$(AR) rcs $@ build/llm.o
	rm build/llm.o

$(STAGE)/include/%: include/%
	@mkdir -p $(@D)
	cp $< $@

$(LICENSES): $(STAGE)/share/doc/llm/%: %
	@mkdir -p $(@D)
	cp $< $@

$(LIB)/cmake/llm/%: cmake/%.in $(NATIVE) Cargo.toml
	@mkdir -p $(@D)
	$(call fill,$<) > $@

$(LIB)/pkgconfig/%: cmake/%.in $(NATIVE) Cargo.toml
	@mkdir -p $(@D)
	$(call fill,$<) > $@

$(STAGE)/bin/llm-%: examples-c/%.c examples-c/common.c examples-c/common.h $(HEADER) $(SHARED)
	@mkdir -p $(@D)
	$(CC) $(STRICT) $(CFLAGS) -I$(STAGE)/include $< examples-c/common.c -o $@ -L$(LIB) -lllm -lm -Wl,-rpath,'$$ORIGIN/../lib'
