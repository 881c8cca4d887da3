#!/usr/bin/env python3
"""The installed programs on the real models: what they print, what they write, how they fail. Run by
`make test-programs`.

    programs.py BIN MODELS      the folder of the programs, and that of the models
"""

import array
import json
import math
import os
import pathlib
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import time

BIN, MODELS = (pathlib.Path(argument) for argument in sys.argv[1:3])
DATA = pathlib.Path(__file__).parent / "data" / "programs"
SHORT = "The capital of France is"

# From exact arithmetic (float64, weights dequantised): ids of SHORT, the first greedy token, and the perplexity of
# text.txt in one window.
EXPECTED = {
    "SmolLM2-135M-Instruct.Q4_1.gguf": (49152, 576, [504, 3575, 282, 4649, 314], 7042, 703, 30.93613066159702),
    "gemma-3-270m-q4_k_m.gguf": (262144, 640, [2, 818, 5279, 529, 7001, 563], 506, 691, 27.613806169955595),
}

# Where this runs in the background they may be ignored, and the programs would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)

checks = 0


def check(condition, *what):
    global checks
    checks += 1
    if not condition:
        sys.exit(f"programs.py: {' '.join(str(w) for w in what)}")


def run(name, *arguments, status=0, stdin=None):
    """Runs a program and gives what it wrote to standard output and error; checks how it exits."""
    command = [BIN / f"llm-{name}", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True)
    check(done.returncode == status, command, "exits", done.returncode, "expected", status, done.stderr.decode())
    return done.stdout, done.stderr.decode()


def on_terminal(name, *arguments):
    """Runs a program whose standard error is a terminal, and gives what it wrote there."""
    ours, theirs = pty.openpty()
    text = b""
    with subprocess.Popen([BIN / f"llm-{name}", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=theirs) as program:
        os.close(theirs)
        try:
            while part := os.read(ours, 65536):
                text += part
        except OSError:  # so Linux says that nobody writes there any more
            pass
    os.close(ours)
    check(program.returncode == 0, name, arguments, "exits", program.returncode, text)
    return text.decode()


def usage():
    programs = sorted(path.name.removeprefix("llm-") for path in BIN.glob("llm-*"))
    check(programs == ["bench", "chat", "embed", "fork", "game_loop", "generate", "imatrix", "inspect", "json", "logits",
                       "pack", "parallel", "perplexity", "quantize", "tokenize"], programs)
    for name in programs:
        out, error = run(name, "--help")
        check(out.decode().startswith(f"Usage: llm-{name} ") and error == "", name, "--help")
        for wrong in ([], ["--no-such-option"], ["x", "--no-such-option"], ["-m"]):
            out, error = run(name, *wrong, status=2)
            check(out == b"" and f"llm-{name}: " in error and "--help" in error, name, wrong, error)
    for wrong in (
        ["generate", "-m", "x", "-p", "x", "-n", "-1"],
        ["generate", "-m", "x", "-p", "x", "--temp", "warm"],
        ["generate", "-m", "x", "-p", "x", "--override", "key=int:1x"],
        ["generate", "-m", "x", "-p", "x", "--override", "key=list:1"],
        ["generate", "-m", "x", "-p", "x", "--override", "key"],
        ["generate", "-m", "x", "-p", "x", "--kv", "q3_0"],
        ["generate", "-m", "x", "-p", "x", "--cache", "large"],
        ["generate", "-m", "x", "-p", "x", "--lookup", "3", "--draft", "y"],
        ["generate", "-m", "x", "-p", "x", "--temp", "nan"],
        ["generate", "-m", "x", "-p", "x", "--top-p", "-1"],
        ["generate", "-m", "x", "-p", "x", "--mirostat", "3"],
        ["parallel", "-m", "x", "-p", "x", "--count", "0"],
        ["parallel", "-m", "x", "-p", "x", "--count", "257"],
        ["fork", "-m", "x", "-p", "x", "-n", "0"],
        ["game_loop", "-m", "x", "-n", "0"],
        ["json", "-m", "x", "-p", "x"],
        ["chat"],
        ["tokenize", "-m", "x"],
        ["tokenize", "-m", "x", "-p", "a", "--decode", "1"],
        ["logits", "-m", "x", "--tokens", "1,x", "-o", "y"],
        ["logits", "-m", "x", "--tokens", "", "-o", "y"],
        ["perplexity", "-m", "x", "-f", "y", "-c", "1"],
        ["bench", "-m", "x", "-r", "0"],
        ["bench", "-m", "x", "-d", "4294967295"],
        ["bench", "-m", "x", "--kv", "q9"],
        ["bench", "-m", "x", "-s", "0"],
        ["bench", "-m", "x", "-s", "2", "-d", "1"],
        ["bench", "-m", "x", "-s", "2", "-p", "0"],
        ["bench", "-m", "x", "-s", "2", "-n", "1"],
        ["bench", "-m", "x", "-s", "2", "-p", "4294967295"],
        ["embed", "-m", "x"],
        ["embed", "-m", "x", "-p", "y", "--pooling", "most"],
        ["pack", "x"],
        ["pack", "x", "y", "z"],
        ["quantize", "x"],
        ["quantize", "x", "y"],
        ["quantize", "x", "y", "Q8_0", "z"],
        ["quantize", "x", "y", "Q8_0", "--output-type", "Q9_K"],
        ["imatrix", "-m", "x", "-f", "y"],
    ):
        run(*wrong, status=2)


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 9},
        "ages": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 120}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "ages"],
    "additionalProperties": False,
}


def schema(folder):
    path = folder / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


def failures(model, folder):
    for name, rest in {
        "generate": ["-p", "x"],
        "tokenize": ["-p", "x"],
        "logits": ["--tokens", "1", "-o", folder / "never"],
        "perplexity": ["-f", DATA / "text.txt"],
        "bench": [],
        "embed": ["-p", "x"],
        "fork": ["-p", "x"],
        "game_loop": [],
        "json": ["-p", "x", "-s", schema(folder)],
        "parallel": ["-p", "x"],
        "inspect": [],
    }.items():
        # A folder is wrong usage.
        for path, status in ((folder / "no-such-model", 1), (folder, 2)):
            out, error = run(name, *([] if name == "inspect" else ["-m"]), path, *rest, status=status)
            check(out == b"" and str(path) in error and error.startswith(f"llm-{name}: "), name, path, error)
    for path, status in ((folder / "no-such-model", 1), (folder, 2)):
        for command in (
            ["quantize", path, folder / "never", "Q8_0"],
            ["pack", path, folder / "never"],
            ["imatrix", "-m", path, "-f", DATA / "text.txt", "-o", folder / "never"],
        ):
            _, error = run(*command, status=status)
            check(str(path) in error and error.startswith(f"llm-{command[0]}: "), path, error)
    _, error = run("quantize", model, folder / "never", "Q9_K", status=2)
    check("Q9_K" in error and "Q4_K_M" in error and error.startswith("llm-quantize: "), error)
    _, error = run("quantize", model, "", "Q8_0", status=2)
    check("its path is empty" in error, error)
    # Told before the text is read.
    _, error = run("imatrix", "-m", model, "-f", DATA / "text.txt", "-o", folder / "no" / "never", status=1)
    check(str(folder / "no") in error and error.startswith("llm-imatrix: "), error)
    _, error = run("quantize", model, folder / "no" / "never", "Q8_0", status=1)
    check(str(folder / "no") in error, error)
    _, error = run("quantize", model, folder / "never", "Q8_0", "--imatrix", DATA / "text.txt", status=1)
    check("no importance file" in error, error)
    _, error = run("generate", "-m", model, "-p", "x", "--temp", "nan", status=2)
    check("temperature" in error and "NaN" in error, error)
    _, error = run("tokenize", "-m", model, "--decode", "4294967295", status=2)
    check("4294967295" in error, error)
    _, error = run("tokenize", "-m", model, "-f", folder / "no-such-file", status=1)
    check("no-such-file" in error, error)
    _, error = run("logits", "-m", model, "--tokens", "1,2,4000000000", "-o", folder / "never", status=2)
    check("4000000000" in error, error)
    _, error = run("logits", "-m", model, "--tokens", "1,2", "-o", folder / "no" / "never", status=1)
    check(str(folder / "no") in error, error)
    _, error = run("perplexity", "-m", model, "-f", "/dev/null", status=1)
    check("nothing to score" in error, error)
    left = [path.name for path in folder.iterdir() if path.name.startswith(("never", ".llm."))]
    check(not left, "a failed program left", left)


def tokenize(model, short, folder):
    out, _ = run("tokenize", "-m", model, "-p", SHORT)
    check(json.loads(out) == short, out)
    # Ends with a byte that is no character; SmolLM2 has no token for those that never occur in UTF-8.
    hard = "Grüße 東京 🙂👩‍🚀\t\tx = [1,  2]\n".encode() + b"\xe6\x9d"
    (folder / "hard").write_bytes(hard)
    ids = json.loads(run("tokenize", "-m", model, "-f", folder / "hard", "--no-bos")[0])
    check(ids == json.loads(run("tokenize", "-m", model, "-f", "-", "--no-bos", stdin=hard)[0]), "-f -")
    check(run("tokenize", "-m", model, "--decode", ",".join(map(str, ids)))[0] == hard, "decode", ids)
    special = "<|im_start|>" if short[0] != 2 else "<start_of_turn>"
    one = json.loads(run("tokenize", "-m", model, "-p", special, "--no-bos")[0])
    check(len(one) == 1, special, one)
    check(len(json.loads(run("tokenize", "-m", model, "-p", special, "--no-bos", "--no-special")[0])) > 1, special)
    check(run("tokenize", "-m", model, "--decode", one[0])[0] == special.encode(), "special tokens are shown")


def logits(model, vocab_size, short, first, folder):
    out, ids = folder / "logits", ",".join(map(str, short))
    seen = []
    for threads in (1, 2):
        out.write_bytes(b"what was there before")
        run("logits", "-m", model, "--tokens", ids, "-o", out, "-t", threads)
        seen.append(out.read_bytes())
    check(seen[0] == seen[1], "logits depend on the number of threads")
    rows = array.array("f", seen[0])
    check(len(rows) == len(short) * vocab_size, len(rows))
    last = rows[-vocab_size:]
    check(last.index(max(last)) == first, "most likely after", SHORT, last.index(max(last)))
    check(not list(folder.glob(".llm.*")), "temporary files stay")


def outputs():
    """Where files are written: behind links, with their permissions; pipes as they are; nothing stays of what was ended."""
    tiny = DATA / "tiny.gguf"
    programs = {
        "logits": lambda path: ["-m", tiny, "--tokens", "1,2,3", "-o", path],
        "quantize": lambda path: [tiny, path, "Q8_0"],
        "pack": lambda path: [tiny, path],
        "imatrix": lambda path: ["-m", tiny, "-f", DATA / "text.txt", "-o", path],
    }
    for name, arguments in programs.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            real, link, new = folder / "real", folder / "link", folder / "new"
            real.write_bytes(b"what was there before")
            real.chmod(0o600)
            link.symlink_to("real")
            new.symlink_to("made")
            for path in (link, new):
                run(name, *arguments(path))
            check(link.is_symlink() and new.is_symlink(), name, "replaces a link")
            check(real.stat().st_mode & 0o777 == 0o600, name, oct(real.stat().st_mode))
            expected = real.read_bytes()
            check((folder / "made").read_bytes() == expected and len(expected) > 100, name, "through a link to nothing")
            for path in ("/dev/stdout", "/proc/self/fd/1"):
                check(run(name, *arguments(path))[0] == expected, name, path, "is a pipe")
                with open(folder / "redirected", "wb") as file:
                    subprocess.run([BIN / f"llm-{name}", *arguments(path)], check=True, stdout=file, stderr=subprocess.PIPE)
                check((folder / "redirected").read_bytes() == expected, name, path, "is a file")
            (folder / "round").symlink_to("round")
            _, error = run(name, *arguments(folder / "round"), status=1)
            check(str(folder / "round") in error, name, error)
            _, error = run(name, *arguments(""), status=1 if name == "logits" else 2)
            check("cannot write" in error, name, error)
            names = sorted(path.name for path in folder.iterdir())
            check(names == ["link", "made", "new", "real", "redirected", "round"], name, names)


def endings(model):
    """Programs that a signal ends leave no unfinished file."""
    for number in (signal.SIGINT, signal.SIGTERM):
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            text = folder / "text"
            text.write_text("word " * 20000)
            for name, *rest in (
                ["logits", "-m", model, "--tokens", "5," * 5000, "-o", folder / "out"],
                ["imatrix", "-m", model, "-f", text, "-o", folder / "out"],
                ["quantize", model, folder / "out", "Q3_K_M"],
            ):
                with subprocess.Popen([BIN / f"llm-{name}", *map(str, rest)], stderr=subprocess.PIPE) as program:
                    while not list(folder.glob(".llm.*")):
                        check(program.poll() is None, name, "ended by itself")
                        time.sleep(0.005)
                    program.send_signal(number)
                    check(program.wait(60) != 0, name, number)
                check([path.name for path in folder.iterdir()] == ["text"], name, number, list(folder.iterdir()))


def gguf(keys, tensors):
    """A GGUF file of keys of u16 and i32, and tensors of 8 numbers of f32."""
    def text(s):
        return struct.pack("<Q", len(s)) + s.encode()

    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for name, (kind, value) in keys.items():
        out += text(name) + struct.pack("<I" + kind, {"H": 2, "i": 5}[kind], value)
    for i, name in enumerate(tensors):
        out += text(name) + struct.pack("<IQIQ", 1, 8, 0, 32 * i)
    return out + bytes(-len(out) % 32) + bytes(32 * len(tensors))


def parts():
    """llm-inspect says which part of a split file holds a tensor."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2):
            keys = {"split.no": ("H", number), "split.count": ("H", 2), "split.tensors.count": ("i", 3)}
            path = pathlib.Path(folder) / f"x-0000{number + 1}-of-00002.gguf"
            path.write_bytes(gguf(keys, [["a", "b"], ["c"]][number]))
        first = pathlib.Path(folder) / "x-00001-of-00002.gguf"
        found = json.loads(run("inspect", first, "--json")[0])["tensors"]
        check([(tensor["name"], tensor["part"]) for tensor in found] == [("a", 0), ("b", 0), ("c", 1)], found)
        check(b'"c": "F32" [8], part 1, at ' in run("inspect", first)[0], "the part")
        check(b"part" not in run("inspect", DATA / "tiny.gguf")[0], "a file that is whole has no parts")


def generate(model, first):
    def go(*more):
        return run("generate", "-m", model, "-p", SHORT, *more)

    greedy = go("--temp", 0, "-n", 24, "--ids")[0].decode().split()
    check(greedy[0] == str(first), greedy)
    text, statistics = go("--temp", 0, "-n", 24)
    check(run("tokenize", "-m", model, "--decode", " ".join(greedy))[0] == text, "text and ids differ")
    check("tokens/s" in statistics, statistics)
    check(go("--temp", 0, "-n", 7, "--ids")[0].decode().split() == greedy[:7], "fewer tokens, other tokens")
    check(go("-n", 0)[0] == b"", "-n 0")
    sampled = go("--seed", 5, "-n", 40, "--ids", "-t", 2)[0]
    check(go("--seed", 5, "-n", 40, "--ids", "-t", 1)[0] == sampled, "the same seed, other tokens")
    check(go("--seed", 6, "-n", 40, "--ids")[0] != sampled, "another seed, the same tokens")
    check(go("--top-k", 1, "-n", 24, "--ids")[0].decode().split() == greedy, "--top-k 1 is not greedy")


def perplexity(model, tokens, exact):
    out, progress = run("perplexity", "-m", model, "-f", DATA / "text.txt")
    result = json.loads(out)
    check(result["tokens"] == tokens - 1, result)
    check(abs(result["ppl"] / exact - 1) < 0.005, result, "exact", exact)
    check(abs(math.exp(result["nll"] / result["tokens"]) / result["ppl"] - 1) < 1e-12, result)
    check(progress == "", "progress where nobody looks", progress)
    check("perplexity" in on_terminal("perplexity", "-m", DATA / "tiny.gguf", "-f", DATA / "text.txt"), "progress")
    windows = json.loads(run("perplexity", "-m", model, "-f", DATA / "text.txt", "-c", 100)[0])
    check(windows["tokens"] == tokens - math.ceil(tokens / 100), windows)
    check(windows["ppl"] > result["ppl"], "less context should predict worse", windows)


def inspect(model, vocab_size):
    result = json.loads(run("inspect", model, "--json")[0])
    check(list(result) == ["version", "alignment", "metadata", "tensors"], list(result))
    check(result["version"] in (2, 3) and result["alignment"] == 32, result["version"], result["alignment"])
    metadata = result["metadata"]
    architecture = metadata["general.architecture"]
    check(architecture["type"] == "string" and model.name.lower().startswith(("smollm2", architecture["value"][:5])))
    layers = metadata[f"{architecture['value']}.block_count"]
    check(layers["type"] == "u32" and layers["value"] in (18, 30), layers)
    epsilon = metadata[f"{architecture['value']}.attention.layer_norm_rms_epsilon"]
    check(epsilon["type"] == "f32" and 0 < epsilon["value"] < 1e-4, epsilon)
    tokens = metadata["tokenizer.ggml.tokens"]
    check((tokens["type"], tokens["items"], tokens["length"]) == ("array", "string", vocab_size), tokens)
    check(len(tokens["value"]) == 8 and all(isinstance(token, str) for token in tokens["value"]), tokens)
    embedding = next(tensor for tensor in result["tensors"] if tensor["name"] == "token_embd.weight")
    check(embedding["shape"] == [metadata[f"{architecture['value']}.embedding_length"]["value"], vocab_size], embedding)
    end = 0
    for tensor in sorted(result["tensors"], key=lambda tensor: tensor["offset"]):
        check(end <= tensor["offset"] and tensor["bytes"] > 0, tensor)
        end = tensor["offset"] + tensor["bytes"]
    check(model.stat().st_size - 32 <= end <= model.stat().st_size, end)
    text = run("inspect", model)[0].decode()
    check(f"{len(result['tensors'])} tensors" in text and f"{len(metadata)} keys" in text, text[:200])


def lora():
    def go(*adapters):
        more = [argument for adapter in adapters for argument in ("--lora", adapter)]
        return run("generate", "-m", DATA / "tiny.gguf", "-p", "Hello", "--temp", 0, "-n", 24, "--ids", *more)[0]

    adapter = DATA / "lora.gguf"
    base = go()
    check(go(f"{adapter}:0") == base, "a scale of 0 changes something")
    check(go(f"{adapter}:40") != base, "an adapter changes nothing")
    check(go(f"{adapter}:40", f"{adapter}:-40") != go(f"{adapter}:40"), "the second adapter changes nothing")
    run("generate", "-m", DATA / "tiny.gguf", "-p", "Hello", "--lora", DATA / "tiny.gguf", status=1)


def sampling():
    def go(*options, status=0):
        return run("generate", "-m", DATA / "tiny.gguf", "-p", "Hello", "-n", 48, "--ids", *options, status=status)

    def differ(*choices):
        texts = [go(*choice)[0] for choice in choices]
        check(len(set(texts)) == len(choices), "an option changes nothing", choices)

    greedy, warm = ["--temp", 0], ["--temp", 3, "--top-k", 0, "--top-p", 1, "--min-p", 0]
    differ(greedy, [*greedy, "--frequency-penalty", 0.02], [*greedy, "--presence-penalty", 0.05])
    dry = [*greedy, "--dry-multiplier", 0.01]
    differ(greedy, dry, [*dry, "--dry-base", 9], [*dry, "--dry-allowed-length", 6])
    check(go(*dry, "--dry-last-n", 0)[0] == go(*greedy)[0], "--dry-last-n 0")
    differ(warm, [*warm, "--typical", 0.2], [*warm, "--top-n-sigma", 0.5])
    xtc = [*warm, "--xtc-threshold", 0.001]
    differ(warm, [*xtc, "--xtc-probability", 1], [*xtc, "--xtc-probability", 0.5])
    fixed = [*warm, "--temp", 0.5]
    dynamic = [*fixed, "--dynatemp-range", 0.5]
    differ(fixed, dynamic, [*dynamic, "--dynatemp-exponent", 9])
    differ(warm, *([*warm, "--mirostat", version] for version in (1, 2)))
    mirostat = [*warm, "--mirostat", 2]
    differ(mirostat, [*mirostat, "--mirostat-tau", 4], [*mirostat, "--mirostat-eta", 2])
    for option, name in (("--typical", "typical_p"), ("--xtc-probability", "xtc_probability"), ("--mirostat", "mirostat")):
        check(name in go(option, 3, status=2)[1], option)


def caches():
    def go(*options, status=0):
        return run("generate", "-m", DATA / "tiny.gguf", "-p", "Hello", "-n", 48, "--temp", 2, "--ids", *options, status=status)

    base = go()[0]
    for same in (["--cache", "paged"], ["--cache", "sliding"], ["--lookup", 4], ["--draft", DATA / "tiny.gguf"]):
        check(go(*same)[0] == base, "an option changes the text", same)
    check("guessed" in go("--lookup", 4)[1] and "guessed" not in go()[1], "statistics of guesses")
    seen = [go(*options)[0] for options in ([], ["--window", 4], ["--window", 4, "--sinks", 2])]
    check(len(set(seen)) == 3, "a window changes nothing", seen)
    check(go("--window", 4, "--cache", "sliding")[0] == seen[1], "a sliding cache changes the text")
    check("sinks" in go("--sinks", 2, status=2)[1], "sinks without a window")
    check(go("--kv", "f32")[0] != b"", "--kv f32")


def together():
    tiny, prompts = DATA / "tiny.gguf", ["Hello", "Hello there", "A text"]

    def alone(prompt, seed):
        out, _ = run("generate", "-m", tiny, "-p", prompt, "-n", 24, "--temp", 2, "--seed", seed)
        return out

    asked = [argument for prompt in prompts for argument in ("-p", prompt)]
    base = ["parallel", "-m", tiny, *asked, "-n", 24, "--temp", 2, "--seed", 5, "--count", 2]
    out, error = run(*base)
    lines = [json.loads(line) for line in out.splitlines()]
    check([(line["prompt"], line["continuation"]) for line in lines] == [(i, j) for i in range(3) for j in range(2)], out)
    for line in lines:
        expected = alone(prompts[line["prompt"]], 5 + line["continuation"]).decode(errors="replace")
        check(line["text"] == expected, "together and alone differ", line, expected)
        check(line["finish"] in ("end", "length"), line)
    check("tokens/s" in error and "processed" in error, error)
    for same in (["--parallel", 1], ["--parallel", 2, "-t", 1], ["-t", 3]):
        check(run(*base, *same)[0] == out, "depends on", same)
    # A prompt that is too long is no reason to end the others.
    out, _ = run(*base, "-p", "x" * 4000, status=1)
    found = [json.loads(line) for line in out.splitlines()]
    check(found[:6] == lines, "a prompt that is too long changes the others")
    last = found[6:]
    check([(line["prompt"], line["continuation"], line["text"]) for line in last] == [(3, 0, ""), (3, 1, "")], last)
    check(all("does not fit" in line["failure"] for line in last), last)

    out, _ = run("parallel", "-m", tiny, "-p", "x" * 4000, status=1)
    check("does not fit" in json.loads(out)["failure"], out)

    out, error = run("fork", "-m", tiny, "-p", prompts[1], "-n", 24, "--temp", 2, "--seed", 5, "--count", 3)
    expected = b"".join(b"%d:%s\n" % (i, alone(prompts[1], 5 + i)) for i in range(3))
    check(out == expected, "forks and sessions of their own differ", out, expected)
    check("processed once" in error, error)
    out, _ = run("fork", "-m", tiny, "-p", prompts[1], "-n", 4294967295, "--temp", 2, "--count", 2)
    check(len(out) > 50, "no limit", out)
    run("fork", "-m", tiny, "-p", prompts[1], "--count", 4294967295, status=2)

    game = ["game_loop", "-m", tiny, "-p", prompts[0], "--prompt-tokens", 0, "-n", 24, "--temp", 2, "--seed", 5]
    out, error = run(*game)
    check(out == alone(prompts[0], 5) + b"\n", "the loop's text differs", out)
    check("median" in error and "largest piece of work" in error, error)
    _, error = run(*game, "--prompt-tokens", 60, "--frames", 2, "--budget-us", 0)
    check(error.startswith("2 frames") and "first token" not in error, error)
    run(*game, "-n", 4294967295)


def constrained(model, folder):
    base = ["json", "-s", schema(folder), "-p", "Somebody: "]
    chat = ["--chat"] if "SmolLM2" in model.name else []
    for path, options in ((DATA / "tiny.gguf", ["--temp", 3]), (model, []), (model, [*chat, "-t", 1])):
        for seed in range(3):
            out, error = run(*base, "-m", path, *options, "--seed", seed)
            value = json.loads(out)
            check(out == json.dumps(value, ensure_ascii=False).encode() + b"\n" or b"\\" in out, "white space", out)
            check(list(value) == ["name", "ages"] and len(value["name"]) <= 9 and 1 <= len(value["ages"]) <= 3, value)
            check(all(type(age) is int and 0 <= age <= 120 for age in value["ages"]) and error == "", value, error)
    out, error = run(*base, "-m", model, "-n", 3, status=1)
    check("not complete" in error and out.startswith(b'{"'), out, error)
    (folder / "schema.json").write_text("{")
    out, error = run(*base, "-m", model, status=2)
    check("schema" in error and out == b"", error)


def embed(model, width):
    texts = ["The cat sat on the mat.", "A cat was sitting on a mat.", "Stock prices fell sharply."]
    more = [argument for text in texts for argument in ("-p", text)]

    def go(*options):
        return [json.loads(line) for line in run("embed", "-m", model, *more, *options)[0].splitlines()]

    vectors = go()
    check([len(vector) for vector in vectors] == [width] * 3, [len(vector) for vector in vectors])
    check(all(abs(sum(x * x for x in vector) - 1) < 1e-5 for vector in vectors), "not normalised")
    check(go("-t", 1) == vectors, "embeddings depend on the number of threads")
    check(vectors == go("--pooling", "mean") and vectors != go("--pooling", "last"), "pooling")
    lengths = [math.sqrt(sum(x * x for x in vector)) for vector in go("--raw")]
    check(all(length > 2 for length in lengths), lengths)
    table = go("--similarity")
    check(all(abs(table[i][i] - 1) < 1e-6 for i in range(3)) and table[0][1] == table[1][0], table)
    check(abs(table[0][1] - sum(a * b for a, b in zip(vectors[0], vectors[1]))) < 1e-5, table)
    check(table[0][1] > table[0][2], "a paraphrase is less alike than another subject", table)


def chat(model, folder):
    def talk(*lines, status=0, **more):
        options = [str(item) for pair in more.items() for item in (f"--{pair[0]}", pair[1])]
        text = "".join(line + "\n" for line in lines).encode(errors="surrogateescape")
        out, error = run("chat", "-m", model, "-n", 12, "-t", 2, *options, stdin=text, status=status)
        return out.decode(), error

    if "gemma" in model.name:
        # A base model: it has no template.
        check("no chat template (key" in talk("Hi", status=1)[1], "no template")
        return
    once, _ = talk("The capital of France?", temp=0)
    check(len(once) > 5, once)
    both, _ = talk("The capital of France?", "And of Spain?", temp=0)
    check(both.startswith(once) and len(both) > len(once), once, both)
    # After a reset nothing is remembered; a file has what was said; a file that cannot be written ends nothing.
    saved = folder / "saved.json"
    again, error = talk("And of Spain?", "/reset", "The capital of France?", "/save /no/such/folder/x", f"/save {saved}", "/exit", "never", temp=0)
    check(again.endswith(once) and "/no/such/folder/x" in error, again, error)
    said = json.loads(saved.read_text())
    check([m["role"] for m in said] == ["user", "assistant"] and said[0]["content"] == "The capital of France?", said)
    check(said[1]["content"] == once[:-1], said)
    check("/reset" in talk("/help")[1] and "no command" not in talk("/help")[1], "help")
    check("there is no command /foo\n" in talk("/foo")[1], "a command that is none")
    # A line that is no text ends nothing; what stands behind a zero byte belongs to the message.
    _, error = talk("Hi", "\udcff\udcfe", "//help me", "A\0B", f"/save {saved}")
    check("not UTF-8" in error, error)
    check([m["content"] for m in json.loads(saved.read_text())][::2] == ["Hi", "/help me", "A\0B"], saved.read_text())
    # Ctrl-C stops an answer and not the program, while it answers and while it waits.
    command = [BIN / "llm-chat", "-m", model, "-t", "2", "--temp", "1.5"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        program.stdin.write(b"Tell me a very long story about the sea.\n")
        program.stdin.flush()
        check(program.stdout.read(20), "no answer")
        program.send_signal(signal.SIGINT)
        program.stdin.write(f"/save {saved}\n".encode())
        program.stdin.flush()
        while b"messages are in" not in (line := program.stderr.readline()):
            check(line, "it ended")
        program.send_signal(signal.SIGINT)
        program.stdin.write(b"/help\n")
        program.stdin.close()
        check(program.wait(60) == 0, "it exits", program.returncode)
    check(len(json.loads(saved.read_text())) == 2, "what there is of an answer stays")
    # And the processing of a message, which is no part of the conversation then.
    command += ["-n", "4", "-c", "8192"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        def seconds():
            fields = pathlib.Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        program.stdin.write(b"Hi\n")
        program.stdin.flush()
        check(program.stdout.readline(), "no answer")
        before = seconds()
        program.stdin.write(b"word " * 8000 + b"\n")
        program.stdin.flush()
        while seconds() < before + 0.5:
            time.sleep(0.01)
        program.send_signal(signal.SIGINT)
        program.stdin.write(f"/save {saved}\n".encode())
        program.stdin.close()
        error = program.stderr.read()
        check(program.wait(60) == 0 and b"2 messages" in error, "it exits", program.returncode, error)


def quantize(model, exact, folder):
    def perplexity_of(path):
        return json.loads(run("perplexity", "-m", path, "-f", DATA / "text.txt")[0])["ppl"]

    def types_of(path):
        return {tensor["name"]: tensor["type"] for tensor in json.loads(run("inspect", path, "--json")[0])["tensors"]}

    # Nothing is lost in F16: what the formats say is dequantised exactly, or nearly so.
    whole, small, importances = folder / "f16.gguf", folder / "small.gguf", folder / "importances.gguf"
    out, progress = run("quantize", model, whole, "F16")
    check(out == b"" and "16.0" in progress and "again" in progress and "%" not in progress, out, progress)
    check("100 %" in on_terminal("quantize", DATA / "tiny.gguf", folder / "tiny", "Q8_0"), "progress")
    check(abs(perplexity_of(whole) / exact - 1) < 0.005, "F16")
    text = os.fsencode(folder) + b"/text-\xff"  # any name will do
    with open(text, "wb") as file:
        file.write((DATA / "text.txt").read_bytes())
    run("imatrix", "-m", whole, "-f", os.fsdecode(text), "-o", importances, "-c", 128)
    made = json.loads(run("inspect", importances, "--json")[0])
    check(made["metadata"]["general.type"]["value"] == "imatrix", made["metadata"])
    check(made["metadata"]["imatrix.datasets"]["value"] == [f"{folder}/text-\ufffd"], made["metadata"])
    run("quantize", whole, small, "q4_k_m", "--imatrix", importances, "-t", 1)
    bytes_of = small.read_bytes()
    run("quantize", whole, small, "Q4_K_M", "--imatrix", importances, "-t", 2)
    check(small.read_bytes() == bytes_of, "the result depends on threads")
    check(perplexity_of(small) < 1.12 * exact, perplexity_of(small), exact)
    # Q5_0 where rows are no multiple of 256.
    types = types_of(small)
    check(types["blk.0.attn_norm.weight"] == "F32" and types["blk.0.attn_q.weight"] in ("Q4_K", "Q5_0"), types)
    # Memory is that of some stripes, not of the model or of its largest tensor.
    rest = f"{BIN}/llm-quantize {whole} {small} Q4_0 --output-type Q8_0 --embedding-type Q5_1 -t 2"
    done = subprocess.run(["sh", "-c", f"ulimit -d 80000; exec {rest}"], capture_output=True)
    check(done.returncode == 0, "80 MB are not enough:", done.stderr)
    types = types_of(small)
    check(types["token_embd.weight"] == "Q5_1" and types["blk.3.ffn_up.weight"] == "Q4_0", types)
    # A file that may not grow as large is no file, and the old one stays.
    old = small.read_bytes()
    limited = f"ulimit -f 2000; trap '' XFSZ; exec {BIN}/llm-quantize {whole} {small} Q8_0"
    done = subprocess.run(["sh", "-c", limited], capture_output=True)
    check(done.returncode == 1 and str(small).encode() in done.stderr, done)
    check(small.read_bytes() == old and not list(folder.glob(".llm.*")), list(folder.iterdir()))


def pack(model, folder):
    def go(path, *options):
        return run("generate", "-m", path, "-p", SHORT, "-n", 24, "--temp", 0, "--ids", *options)[0]

    packed = folder / "packed.gguf"
    progress = on_terminal("pack", model, packed)
    check("100 %" in progress and packed.stat().st_size < 1.1 * model.stat().st_size, progress, packed.stat().st_size)
    check(go(packed) == go(model) and go(packed, "-t", 1) == go(model), "another text")
    _, error = run("pack", packed, folder / "never", status=2)
    check("packed already" in error, error)
    # Any other reader of GGUF files finds no model in it, but can look into it.
    check("llm.packed.weights" in run("inspect", packed)[0].decode(), "inspect")
    packed.write_bytes(packed.read_bytes().replace(b"\x03\0\0\0\0\0\0\0x16", b"\x03\0\0\0\0\0\0\0x99"))
    _, error = run("generate", "-m", packed, "-p", SHORT, status=1)
    check("version 2 of the layout x99" in error and "pack the model's file again" in error, error)
    packed.write_bytes(packed.read_bytes()[:-40000])
    _, error = run("generate", "-m", packed, "-p", SHORT, status=1)
    check("llm.packed" in error or "tensor" in error, error)


def bench(model):
    result = json.loads(run("bench", "-m", model, "-p", 16, "-n", 4, "-t", 2, "-r", 2, "--json")[0])
    check([item["test"] for item in result] == ["pp16", "tg4", "load"], result)
    for item in result[:2]:
        check(len(item["tok_s"]) == 2 and min(item["tok_s"]) > 0, item)
        check(item["threads"] == 2 and item["model"] == str(model) and item["isa"], item)
    load = result[2]
    check(0 < load["load_ms"] < load["first_token_ms"] and load["peak_rss_mib"] > 50, load)
    check("tokens/s" in run("bench", "-m", model, "-p", 16, "-n", 0, "-r", 1)[0].decode(), "without --json")
    behind = json.loads(run("bench", "-m", model, "-p", 0, "-n", 4, "-d", 40, "--kv", "q8_0", "-r", 2, "--json")[0])
    check([row["test"] for row in behind] == ["tg4", "load"], "-p 0")
    check((behind[0]["depth"], behind[0]["kv"], len(behind[0]["tok_s"])) == (40, "q8_0", 2), "-d and --kv")
    together = json.loads(run("bench", "-m", model, "-p", 20, "-n", 5, "-s", 3, "-r", 2, "--json")[0])
    check([row["test"] for row in together] == ["pp20", "tg5", "load"], "-s")
    for row in together[:2]:
        check(row["sequences"] == 3 and len(row["tok_s"]) == 2 and min(row["tok_s"]) > 0, row)
    check([row["sequences"] for row in result[:2]] == [1, 1], "without -s")


usage()
lora()
sampling()
caches()
together()
outputs()
parts()
for name, (vocab_size, width, short, first, tokens, exact) in EXPECTED.items():
    with tempfile.TemporaryDirectory() as temporary:
        model, folder = MODELS / name, pathlib.Path(temporary)
        failures(model, folder)
        tokenize(model, short, folder)
        logits(model, vocab_size, short, first, folder)
        generate(model, first)
        perplexity(model, tokens, exact)
        inspect(model, vocab_size)
        if name.startswith("SmolLM2"):  # the smaller one: the search for good blocks takes its time
            quantize(model, exact, folder)
            endings(model)
        pack(model, folder)
        embed(model, width)
        chat(model, folder)
        constrained(model, folder)
        bench(model)
print(f"programs.py: {checks} checks ok")
