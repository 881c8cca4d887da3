#!/usr/bin/env python3
"""Prefill and decode against llama.cpp on the same files, on this machine, in one run.

llama.cpp is built natively from the source package of `llama-cpp-python` (PyPI), once, into build/peers. The two then
take turns, so that a machine whose speed drifts drifts for both. llama.cpp runs with and without flash attention, and
the better of the two counts. Printed are medians and the ratio of medians, as Markdown.

Usage: benches/peers.py [--rounds N] [--threads N] [MODEL ...]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "build" / "peers"
PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"


def llama_bench():
    """The path of llama.cpp's benchmark program, built if it is not there."""
    source = PEERS / f"{PACKAGE.replace('-', '_')}-{VERSION}" / "vendor" / "llama.cpp"
    program = source / "build" / "bin" / "llama-bench"
    if program.exists():
        return program
    PEERS.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", PEERS]
    subprocess.run([*pip, f"{PACKAGE}=={VERSION}"], check=True)
    with tarfile.open(next(PEERS.glob("*.tar.gz"))) as archive:
        archive.extractall(PEERS)
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF"]
    options += ["-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF"]
    log = (PEERS / "build.log").open("w")
    subprocess.run(["cmake", "-B", "build", *options], cwd=source, check=True, stdout=log, stderr=log)
    build = ["cmake", "--build", "build", "-j", str(os.cpu_count()), "--target", "llama-bench"]
    subprocess.run(build, cwd=source, check=True, stdout=log, stderr=log)
    return program


def run(command):
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def theirs(program, model, threads, flash):
    """Tokens per second of one run: {"pp512": .., "tg128": ..}."""
    command = [program, "-m", model, "-p", "512", "-n", "128", "-t", str(threads), "-r", "1", "-fa", str(flash)]
    return {("tg128" if r["n_gen"] else "pp512"): r["avg_ts"] for r in run([*command, "-o", "json"])}


def ours(model, threads):
    """The same of llm-bench."""
    program = ROOT / "build" / "stage" / "bin" / "llm-bench"
    rows = run([program, "-m", model, "-p", "512", "-n", "128", "-t", str(threads), "-r", "1", "--json"])
    return {r["test"]: statistics.median(r["tok_s"]) for r in rows if "tok_s" in r}


def cpu():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("models", nargs="*", default=sorted((ROOT / "models").glob("*.gguf")))
    options = parser.parse_args()
    program = llama_bench()
    print(f"{cpu()}, {options.threads} threads, medians of {options.rounds} alternating runs, tokens per second\n")
    print("| model | test | libllm | llama.cpp | ratio |\n|---|---|---|---|---|")
    for model in options.models:
        own, flash, plain = [], [], []
        for _ in range(options.rounds):
            own.append(ours(model, options.threads))
            plain.append(theirs(program, model, options.threads, 0))
            flash.append(theirs(program, model, options.threads, 1))
        for test in ("pp512", "tg128"):
            median = lambda runs: statistics.median(run[test] for run in runs)
            best = max(median(plain), median(flash))
            print(f"| {Path(model).stem} | {test} | {median(own):.0f} | {best:.0f} | {median(own) / best:.2f} |")


if __name__ == "__main__":
    main()
