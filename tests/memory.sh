#!/bin/sh
# The C programs on a small model under AddressSanitizer with LeakSanitizer (library and programs instrumented, all
# instruction sets of this machine) and under Valgrind (the installed ones). Run by `make test-memory`.
#
#     memory.sh BIN TARGET    the folder of the programs, and cargo's target folder
set -eu
: "${CARGO:=cargo}"
bin=$1
target=$2
model=tests/data/programs/tiny.gguf
lora=tests/data/programs/lora.gguf
triple=x86_64-unknown-linux-gnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf 'A small text of few words.' > "$work/text"
# Without numbers: llguidance compares optional bounds, and the optimiser reads those that are absent before it looks
# whether they are there, which Valgrind takes for a use of uninitialised memory.
printf '{"type": "array", "items": {"enum": ["b", "a", null]}, "minItems": 2, "maxItems": 9}' > "$work/schema"
head -c 20000 $model > "$work/cut.gguf"

run() { # EXPECTED-STATUS COMMAND...
    expected=$1
    shift
    status=0
    $wrapper "$@" > "$work/out" 2> "$work/err" || status=$?
    if [ $status != "$expected" ]; then
        cat "$work/out" "$work/err" >&2
        echo "memory.sh: exit status $status, expected $expected: $wrapper $*" >&2
        exit 1
    fi
    runs=$((runs + 1))
}

run_all() { # BIN: what each program does, and how it fails
    runs=0
    run 0 "$1/llm-generate" -m $model -p "Hello" -n 24 --seed 3 -t 2
    run 0 "$1/llm-generate" -m $model -p "Hello" -n 24 --temp 0 --ids -t 1
    run 0 "$1/llm-generate" -m $model -p "Hello" -n 1000 --temp 0
    run 0 "$1/llm-generate" -m $model -p "Hello" -n 8 --lora $lora --lora $lora:-0.5
    run 1 "$1/llm-generate" -m $model -p "Hello" -n 8 --lora $model
    run 0 "$1/llm-generate" -m $model -p "Hello" -n 24 --cache paged --lookup 4
    run 0 "$1/llm-generate" -m $model -p "Hello" -n 24 --cache sliding --window 8 --sinks 2 --draft $model
    run 0 "$1/llm-parallel" -m $model -p "Hello" -p "Hello you" -p "A text" -n 16 --count 2 -t 2
    run 1 "$1/llm-parallel" -m $model -p "Hello Hello Hello Hello Hello Hello Hello Hello" --context 3
    run 0 "$1/llm-fork" -m $model -p "Hello" -n 8 --count 3
    run 0 "$1/llm-json" -m $model -s "$work/schema" -p "Hello" --temp 2
    run 1 "$1/llm-json" -m $model -s "$work/schema" -p "Hello" -n 3
    run 2 "$1/llm-json" -m $model -s "$work/text" -p "Hello"
    run 0 "$1/llm-game_loop" -m $model -n 8 --prompt-tokens 50 -t 2
    run 0 "$1/llm-embed" -m $model -p "Hello" -p "A text"
    run 0 "$1/llm-embed" -m $model -p "Hello" -p "A text" --similarity --pooling last
    run 2 "$1/llm-generate" -m $model -p "Hello" --temp nan
    run 1 "$1/llm-generate" -m "$work/cut.gguf" -p "Hello"
    run 2 "$1/llm-generate" -m "$work" -p "Hello"
    run 1 "$1/llm-chat" -m $model -n 8 < "$work/text"
    run 0 "$1/llm-tokenize" -m $model -f "$work/text"
    run 0 "$1/llm-tokenize" -m $model --decode "1, 70, 71, 72"
    run 2 "$1/llm-tokenize" -m $model --decode "4000000000"
    run 0 "$1/llm-logits" -m $model --tokens "1,70,71,72" -o "$work/logits"
    run 2 "$1/llm-logits" -m $model --tokens "1,70,262" -o "$work/never"
    run 0 "$1/llm-perplexity" -m $model -f "$work/text" -c 10
    run 0 "$1/llm-bench" -m $model -p 20 -n 5 -r 2 --json
    run 0 "$1/llm-bench" -m $model -p 20 -n 5 -s 3 -r 1
    run 0 "$1/llm-inspect" $model
    run 0 "$1/llm-inspect" $model --json
    run 1 "$1/llm-inspect" "$work/cut.gguf"
    run 0 "$1/llm-imatrix" -m $model -f "$work/text" -o "$work/importances" -c 10
    run 0 "$1/llm-quantize" $model "$work/small.gguf" Q4_0 --imatrix "$work/importances" --embedding-type Q8_0 -t 2
    run 0 "$1/llm-generate" -m "$work/small.gguf" -p "Hello" -n 4
    run 0 "$1/llm-pack" $model "$work/packed.gguf" -t 2
    run 0 "$1/llm-generate" -m "$work/packed.gguf" -p "Hello" -n 4
    run 2 "$1/llm-pack" "$work/packed.gguf" "$work/never"
    run 1 "$1/llm-quantize" $model "$work/small.gguf" Q4_0 --imatrix "$work/text"
    run 1 "$1/llm-quantize" "$work/cut.gguf" "$work/never" Q4_0
    run 1 "$1/llm-imatrix" -m "$work/cut.gguf" -f "$work/text" -o "$work/never"
}

# Without debug assertions: with them the library keeps a table of its handles, in which LeakSanitizer finds them all.
CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
    $CARGO build --quiet --lib --target $triple --target-dir "$target/asan"
mkdir "$work/asan"
for source in examples-c/*.c; do
    name=$(basename "$source" .c)
    [ "$name" = common ] && continue
    clang -g -fsanitize=address -Iinclude "$source" examples-c/common.c -o "$work/asan/llm-$name" \
        "$target/asan/$triple/debug/libllm.a" $(cat "$target/release/libllm.native")
done
export ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1:exitcode=99
wrapper=
# That a leak would be seen.
runs=0
cat > "$work/leak.c" <<'C'
#include "llm.h"

int main(void) {
    llm_error_t *error = NULL;
    llm_gguf_t *gguf = NULL;
    for (int i = 0; i < 3; i++)
        if (llm_gguf_open("", 0, &gguf, &error) == LLM_STATUS_OK) return 1;
    llm_error_free(error);
    return 0;
}
C
clang -fsanitize=address -Iinclude "$work/leak.c" -o "$work/leak" "$target/asan/$triple/debug/libllm.a" \
    $(cat "$target/release/libllm.native")
run 99 "$work/leak"
isas="scalar"
grep -qw avx2 /proc/cpuinfo && isas="$isas avx2"
grep -qw avx512_vnni /proc/cpuinfo && isas="$isas avx512"
for isa in $isas; do
    LLM_ISA=$isa
    export LLM_ISA
    run_all "$work/asan"
    echo "memory.sh: AddressSanitizer, $isa: $runs runs ok"
done

# Valgrind cannot run AVX-512.
if echo "$isas" | grep -qw avx2; then LLM_ISA=avx2; else LLM_ISA=scalar; fi
wrapper="valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect
    --errors-for-leak-kinds=definite,indirect"
run_all "$bin"
echo "memory.sh: Valgrind, $LLM_ISA: $runs runs ok"
