#!/usr/bin/env python3
"""SmolLM2's tokenizer against the `tokenizers` crate (by its PyPI package) and llama.cpp, one thread, the same file, in
one run.

They take turns, a process each for ours and llama.cpp, so that a machine whose speed drifts drifts for all; there must be
as many tokens. Needs the packages `tokenizers` and `gguf`, and `cargo bench --bench tokenizer --no-run` before; llama.cpp
is built if it is not there.

Usage: benches/peer_tokenizers.py FILE
"""

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import peers
from gguf import GGUFReader
from tokenizers import Tokenizer, models, pre_tokenizers

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
ROUNDS = 3


def theirs():
    fields = GGUFReader(MODEL).fields
    strings = lambda key: [bytes(fields[key].parts[i]).decode() for i in fields[key].data]
    vocab = {token: i for i, token in enumerate(strings("tokenizer.ggml.tokens"))}
    merges = [tuple(merge.split(" ")) for merge in strings("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    # What the pre-tokenizer "smollm" is.
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tokenizer


def ours(path):
    """MB/s and the number of tokens of our bench."""
    command = ["cargo", "bench", "-q", "--bench", "tokenizer", "--", path]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    rate, tokens = re.search(r"SmolLM2.* ([0-9.]+) MB/s, ([0-9]+) tokens", out).groups()
    return float(rate), int(tokens)


def llama_tokenize():
    """The program of `llama_tokenize.c`."""
    libraries = peers.llama()
    source = libraries.parent.parent
    program = peers.PEERS / "llama_tokenize"
    command = ["cc", "-O2", ROOT / "benches" / "llama_tokenize.c", "-o", program, "-L", libraries, "-lllama"]
    command += ["-I", source / "include", "-I", source / "ggml" / "include"]
    subprocess.run([*command, f"-Wl,-rpath,{libraries}", f"-Wl,-rpath-link,{libraries}"], check=True)
    return program


def main():
    path = Path(sys.argv[1]).resolve()
    text = path.read_bytes().decode()
    tokenizer, llama = theirs(), llama_tokenize()
    own, other, llama_cpp = [], [], []
    for _ in range(ROUNDS):
        rate, tokens = ours(path)
        own.append(rate)
        start = time.perf_counter()
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        other.append(len(text.encode()) / 1e6 / (time.perf_counter() - start))
        if len(ids) != tokens:
            sys.exit(f"{tokens} tokens, the crate has {len(ids)}")
        out = subprocess.run([llama, MODEL, path], check=True, capture_output=True, text=True).stdout.split()
        llama_cpp.append(float(out[0]))
        if int(out[1]) != tokens:
            sys.exit(f"{tokens} tokens, llama.cpp has {out[1]}")
    own = statistics.median(own)
    for name, rates in (("tokenizers", other), ("llama.cpp", llama_cpp)):
        rate = statistics.median(rates)
        print(f"libllm {own:.1f} MB/s, {name} {rate:.1f} MB/s: {own / rate:.1f}x")


if __name__ == "__main__":
    main()
