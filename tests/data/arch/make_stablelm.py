#!/usr/bin/env python3
"""A tiny StableLM 2 12B with random weights as GGUF, and what numpy computes with it in float64.

    pip install gguf numpy zstandard
    python make_stablelm.py FOLDER [sequential]

Writes FOLDER/model.gguf and golden.gguf, packed as `.planes.zst`, and prints how far off typical mistakes are.
`sequential`: with a norm before the feed-forward network, which reads what attention gave too.
Weights are rounded to few bits, which pack well; the arithmetic and all else are exact. The vocabulary is that of
the other models.
"""
import pathlib
import sys

import gguf
import numpy as np
import zstandard

HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE.parent))
import pack

VOCAB, WIDTH, FEED, LAYERS, HEADS, KV_HEADS, ROTATED = 320, 32, 48, 2, 4, 2, 4
SIZE = WIDTH // HEADS
EPS, BASE = 1e-5, 10000.0
LENGTHS = (6, 16)


def draw_weights(sequential):
    rng = np.random.default_rng(12)
    rounded = lambda values, bits: (np.round(values * 2**bits) / 2**bits).astype(np.float32)
    gain = lambda *shape: rounded(1 + 0.3 * rng.standard_normal(shape), 5)
    bias = lambda n: rounded(0.3 * rng.standard_normal(n), 5)
    matrix = lambda *shape: rounded(rng.standard_normal(shape) / np.sqrt(shape[-1]), 5)
    weights = {"token_embd.weight": rounded(rng.standard_normal((VOCAB, WIDTH)), 3)}
    for layer in range(LAYERS):
        weights |= {
            f"blk.{layer}.{name}": value
            for name, value in {
                "attn_norm.weight": gain(WIDTH),
                "attn_norm.bias": bias(WIDTH),
                "attn_q.weight": matrix(HEADS * SIZE, WIDTH),
                "attn_k.weight": matrix(KV_HEADS * SIZE, WIDTH),
                "attn_v.weight": matrix(KV_HEADS * SIZE, WIDTH),
                "attn_q_norm.weight": gain(HEADS, SIZE),
                "attn_k_norm.weight": gain(KV_HEADS, SIZE),
                "attn_output.weight": matrix(WIDTH, HEADS * SIZE),
                "ffn_gate.weight": matrix(FEED, WIDTH),
                "ffn_up.weight": matrix(FEED, WIDTH),
                "ffn_down.weight": matrix(WIDTH, FEED),
            }.items()
        }
        if sequential:
            weights |= {f"blk.{layer}.ffn_norm.weight": gain(WIDTH), f"blk.{layer}.ffn_norm.bias": bias(WIDTH)}
    weights |= {"output_norm.weight": gain(WIDTH), "output_norm.bias": bias(WIDTH), "output.weight": matrix(VOCAB, WIDTH)}
    return weights


def layer_norm(x, weight, bias=0.0, mean=True):
    """Of the last axis."""
    x = x - x.mean(-1, keepdims=True) if mean else x
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight + bias


def rotate(x):
    """x (T, heads, SIZE): of the first ROTATED elements of a head the pairs (i, i + ROTATED / 2)."""
    half = ROTATED // 2
    angles = np.arange(len(x))[:, None] * BASE ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:ROTATED]
    return np.concatenate([a * cos - b * sin, a * sin + b * cos, x[..., ROTATED:]], -1)


def attention(x, w, mistake):
    heads = lambda name: (x @ w[f"attn_{name}.weight"].T).reshape(len(x), -1, SIZE)
    q, k, v = heads("q"), heads("k"), heads("v")
    q_gain, k_gain = w["attn_q_norm.weight"], w["attn_k_norm.weight"]
    if mistake == "weights of the first head for all":
        q_gain, k_gain = q_gain[0], k_gain[0]
    norm = lambda x, gain: layer_norm(x, gain, mean=mistake != "RMS norm of q and k")
    if mistake == "norm of all heads at once":
        norm = lambda x, gain: layer_norm(x.reshape(len(x), -1), gain.reshape(-1)).reshape(x.shape)
    if mistake == "no norm of q and k":
        norm = lambda x, gain: x
    if mistake == "norm after the rotation":
        q, k = norm(rotate(q), q_gain), norm(rotate(k), k_gain)
    else:
        q, k = rotate(norm(q, q_gain)), rotate(norm(k, k_gain))
    k, v = np.repeat(k, HEADS // KV_HEADS, 1), np.repeat(v, HEADS // KV_HEADS, 1)
    scores = np.einsum("qhe,khe->hqk", q, k) / np.sqrt(SIZE)
    scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    return np.einsum("hqk,khe->qhe", scores, v).reshape(len(x), -1) @ w["attn_output.weight"].T


def feed_forward(x, w):
    gate = x @ w["ffn_gate.weight"].T
    return (gate / (1 + np.exp(-gate)) * (x @ w["ffn_up.weight"].T)) @ w["ffn_down.weight"].T


def compute(weights, tokens, mistake=None):
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    x = weights["token_embd.weight"][tokens]
    for layer in range(LAYERS):
        start = f"blk.{layer}."
        w = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
        normed = layer_norm(x, w["attn_norm.weight"], w["attn_norm.bias"])
        attended = attention(normed, w, mistake)
        if "ffn_norm.weight" in w:
            x = x + attended
            x = x + feed_forward(layer_norm(x, w["ffn_norm.weight"], w["ffn_norm.bias"]), w)
        elif mistake == "halves one after the other":
            x = x + attended
            x = x + feed_forward(layer_norm(x, w["attn_norm.weight"], w["attn_norm.bias"]), w)
        else:
            x = x + attended + feed_forward(normed, w)
    return layer_norm(x, weights["output_norm.weight"], weights["output_norm.bias"]) @ weights["output.weight"].T


def vocabulary(folder):
    """The keys of the vocabulary of the model `stablelm`."""
    packed = (HERE / "stablelm/model.gguf.planes.zst").read_bytes()
    packed = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    whole = len(packed) // 4
    words = np.frombuffer(packed[: 4 * whole], np.uint8).reshape(4, whole).T.tobytes() + packed[4 * whole :]
    path = folder / "vocabulary.gguf"
    path.write_bytes(words)
    fields = gguf.GGUFReader(path).fields
    path.unlink()
    return {name: field for name, field in fields.items() if name.startswith("tokenizer.")}


def write_model(path, weights, sequential):
    writer = gguf.GGUFWriter(path, "stablelm")
    writer.add_type("model")
    writer.add_name("tiny random stablelm-12b")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(LAYERS)
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(ROTATED)
    writer.add_parallel_residual(not sequential)
    writer.add_layer_norm_eps(EPS)
    for name, field in vocabulary(path.parent).items():
        kind = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], kind)
    for name, weight in weights.items():
        writer.add_tensor(name, weight)
    pack.save(writer, path)


def write_golden(path, sequences, results):
    writer = gguf.GGUFWriter(path, "golden")
    writer.add_string("golden.model", "stablelm-12b")
    writer.add_string("golden.reference", f"numpy {np.__version__}, float64")
    for i, (tokens, result) in enumerate(zip(sequences, results)):
        writer.add_tensor(f"tokens.{i}", np.array(tokens, np.int32))
        writer.add_tensor(f"logits.{i}", result.astype(np.float32))
    pack.save(writer, path)


def main():
    folder, sequential = pathlib.Path(sys.argv[1]), sys.argv[2:] == ["sequential"]
    folder.mkdir(parents=True, exist_ok=True)
    weights = draw_weights(sequential)
    rng = np.random.default_rng(34)
    sequences = [rng.integers(0, VOCAB, length) for length in LENGTHS]
    exact = [compute(weights, tokens) for tokens in sequences]
    for mistake in (
        "no norm of q and k",
        "RMS norm of q and k",
        "weights of the first head for all",
        "norm of all heads at once",
        "norm after the rotation",
        "halves one after the other",
    ):
        wrong = [compute(weights, tokens, mistake) for tokens in sequences]
        error = sum(((a - b) ** 2).sum() for a, b in zip(wrong, exact)) / sum((b**2).sum() for b in exact)
        print(f"{mistake}: {error:.1e}")
    write_model(folder / "model.gguf", weights, sequential)
    write_golden(folder / "golden.gguf", sequences, exact)


if __name__ == "__main__":
    main()
