#!/bin/sh
# The installed files: their names, the exports, programs built against them with pkg-config and CMake, shared and static,
# in the prefix where they were installed, in a second one and after a move. Run by `make test-install`.
set -eu
: "${MAKE:=make}" "${CC:=cc}"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
abi=$(echo "$version" | sed -E 's/^(0\.[0-9]+|[0-9]+).*/\1/')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "install.sh: $*" >&2
    exit 1
}
expect() { # WHAT FOUND EXPECTED
    [ "$2" = "$3" ] || fail "$1 is '$2', expected '$3'"
}

cat > "$work/consumer.c" <<'C'
#include <llm.h>
#include <stdio.h>

int main(void) {
    llm_gguf_t *gguf = NULL;
    llm_status_t status = llm_gguf_open("/no/such/file", LLM_NUL_TERMINATED, &gguf, NULL);
    printf("%s %s %d\n", llm_version(), llm_status_name(status), (int)(llm_abi_version() == LLM_ABI_VERSION));
    return 0;
}
C
cat > "$work/other.rs" <<'R'
#[unsafe(no_mangle)]
pub extern "C" fn other_length() -> usize {
    std::panic::catch_unwind(|| format!("{:?}", vec![1.5; 3]).len()).unwrap_or(0)
}
R
mkdir "$work/cmake"
cat > "$work/cmake/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.16)
project(consumer C)
if(NOT DEFINED ASKED)
  set(ASKED 0.1)
endif()
find_package(llm ${ASKED} REQUIRED CONFIG OPTIONAL_COMPONENTS none)
find_package(llm ${ASKED} REQUIRED CONFIG ${MORE}) # twice must do no harm
add_executable(consumer ../consumer.c)
target_link_libraries(consumer PRIVATE llm::llm)
CMAKE

expected="$version NOT_FOUND 1"

check_prefix() { # PREFIX: everything that a user may do with it
    prefix=$1
    for file in include/llm.h include/llm_api.json lib/libllm.a lib/libllm.so \
        share/doc/llm/LICENSE-APACHE share/doc/llm/LICENSE-MIT share/doc/llm/THIRD-PARTY.md lib/pkgconfig/llm.pc \
        lib/cmake/llm/llmConfig.cmake lib/cmake/llm/llmConfigVersion.cmake; do
        [ -f "$prefix/$file" ] || fail "$file is not installed"
    done
    for source in examples-c/*.c; do
        name=$(basename "$source" .c)
        [ "$name" = common ] && continue
        "$prefix/bin/llm-$name" --help > "$work/help" || fail "llm-$name --help"
        grep -q "^Usage: llm-$name " "$work/help" || fail "llm-$name --help says nothing of itself"
    done
    if grep -rIl "$PWD\|$work" "$prefix" >/dev/null; then
        fail "a path of this machine is in $(grep -rIl "$PWD\|$work" "$prefix" | head -n 1)"
    fi

    soname=$(objdump -p "$prefix/lib/libllm.so" | sed -n 's/ *SONAME *//p')
    expect "SONAME" "$soname" "libllm.so.$abi"
    expect "libllm.so.$abi" "$(readlink "$prefix/lib/$soname")" "libllm.so.$version"
    for library in "-D $prefix/lib/libllm.so" "$prefix/lib/libllm.a"; do
        foreign=$(nm --defined-only -g $library | awk 'NF == 3 && $3 !~ /^llm_/ { print $3 }' | head -n 3)
        expect "foreign exports of ${library#-D }" "$foreign" ""
    done

    export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
    expect "pkg-config's version" "$(pkg-config --modversion llm)" "$version"
    $CC "$work/consumer.c" -o "$work/shared" $(pkg-config --cflags --libs llm) -Wl,-rpath,"$prefix/lib"
    expect "pkg-config, shared" "$("$work/shared")" "$expected"
    $CC "$work/consumer.c" -o "$work/static" $(pkg-config --cflags llm) "$(pkg-config --variable=libdir llm)/libllm.a" \
        $(pkg-config --static --libs llm | sed 's/-lllm\>//')
    expect "pkg-config, static" "$("$work/static")" "$expected"
    # Nothing of it is shared then; what the linker says of glibc's name services is no matter.
    $CC -static "$work/consumer.c" -o "$work/static" $(pkg-config --cflags --static --libs llm) 2> "$work/log" \
        || { cat "$work/log"; fail "pkg-config, -static"; }
    expect "pkg-config, -static" "$("$work/static")" "$expected"

    for kind in ON OFF; do
        rm -rf "$work/build"
        cmake -S "$work/cmake" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" -DBUILD_SHARED_LIBS=$kind \
            > "$work/log" 2>&1 && cmake --build "$work/build" >> "$work/log" 2>&1 || { cat "$work/log"; fail "CMake"; }
        expect "CMake, BUILD_SHARED_LIBS=$kind" "$("$work/build/consumer")" "$expected"
        linked=$(objdump -p "$work/build/consumer" | grep -c "NEEDED.*libllm" || true)
        expect "libllm among the needed libraries, BUILD_SHARED_LIBS=$kind" "$linked" "$([ $kind = ON ] && echo 1 || echo 0)"
    done
}

"$MAKE" --no-print-directory install PREFIX="$work/first" >/dev/null
"$MAKE" --no-print-directory install PREFIX=/second DESTDIR="$work" >/dev/null
# Over itself: what runs must not be written into.
"$MAKE" --no-print-directory install PREFIX="$work/first" >/dev/null
check_prefix "$work/first"
check_prefix "$work/second"
mv "$work/first" "$work/moved"
check_prefix "$work/moved"

configure() { # OPTION...: whether the package is found
    rm -rf "$work/build"
    cmake -S "$work/cmake" -B "$work/build" "$@" > "$work/log" 2>&1
}
for asked in 0.0 0.2 1.0 "$version.1" 0.0...0.0.9 0.2...1.0 "0.0...<$version"; do
    ! configure -DCMAKE_PREFIX_PATH="$work/moved" -DASKED="$asked" || fail "CMake takes $version where $asked is asked for"
done
for asked in 0 "$version" 0.0...0.2 "0.0...$version" "$version...<1"; do
    configure -DCMAKE_PREFIX_PATH="$work/moved" -DASKED="$asked" || fail "CMake refuses $version where $asked is asked for"
done
! configure -DCMAKE_PREFIX_PATH="$work/moved" -DMORE="COMPONENTS;nonsense" || fail "CMake finds a component of nonsense"
# Found through a link to the folder of libraries, as /lib is one to /usr/lib.
mkdir "$work/root"
ln -s "$work/moved/lib" "$work/root/lib"
configure -DCMAKE_PREFIX_PATH="$work/root" || { cat "$work/log"; fail "CMake through a link"; }
cmake --build "$work/build" > "$work/log" 2>&1 || { cat "$work/log"; fail "CMake's program through a link"; }

# What is built is installed without Rust.
CARGO=/no/cargo "$MAKE" --no-print-directory install PREFIX="$work/third" > "$work/log" 2>&1 \
    || { cat "$work/log"; fail "make install needs Rust"; }
[ -f "$work/third/lib/libllm.so" ] || fail "make install without Rust installs nothing"

# Another Rust library in the same program, each with its own standard library.
rustc --edition 2024 --crate-type staticlib -o "$work/libother.a" "$work/other.rs"
cat > "$work/both.c" <<'C'
#include <llm.h>
#include <stdio.h>

size_t other_length(void);

int main(void) {
    printf("%s %zu\n", llm_version(), other_length());
    return 0;
}
C
$CC "$work/both.c" -o "$work/both" -I"$work/moved/include" "$work/moved/lib/libllm.a" "$work/libother.a" \
    $(PKG_CONFIG_PATH="$work/moved/lib/pkgconfig" pkg-config --static --libs llm | sed 's/-lllm\>//')
expect "two Rust libraries" "$("$work/both")" "$version 15"

# The example of the README is a program.
sed -n '/^```c$/,/^```$/p' README.md | sed '/^```/d' > "$work/readme.c"
[ -s "$work/readme.c" ] || fail "the README has no example in C"
$CC -std=c99 -Wall -Wextra -Wpedantic -Werror "$work/readme.c" -o "$work/readme" -I"$work/moved/include" \
    -L"$work/moved/lib" -lllm -Wl,-rpath,"$work/moved/lib"
expect "the README's example without a model" "$("$work/readme" 2>&1 | grep -c model.gguf)" 1
echo "install.sh: ok"
