#!/usr/bin/env python3
"""Writes a llama model of 1.1 billion random weights in F16: the shape of TinyLlama with SmolLM2's tokenizer.

Its text is noise; it is there to be timed, larger than any cache. Needs the packages `gguf` and `numpy`.

Usage: benches/synthetic.py OUT
"""

import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter

ROOT = Path(__file__).resolve().parent.parent
LAYERS, D, F, HEADS, KV_HEADS = 22, 2048, 5632, 32, 4


def main():
    source = GGUFReader(ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    out = GGUFWriter(sys.argv[1], "llama")
    for key, field in source.fields.items():
        if key.startswith("tokenizer.") and "chat_template" not in key:
            value = field.contents()
            if isinstance(value, list):
                out.add_array(key, value)
            else:
                out.add_key_value(key, value, field.types[0])
    vocabulary = len(source.fields["tokenizer.ggml.tokens"].data)
    keys = {"block_count": LAYERS, "embedding_length": D, "feed_forward_length": F, "context_length": 8192}
    keys |= {"attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "vocab_size": vocabulary}
    for key, value in keys.items():
        out.add_uint32(f"llama.{key}", value)
    out.add_key_value("llama.attention.layer_norm_rms_epsilon", 1e-5, GGUFValueType.FLOAT32)
    # Noise that is not repeated within a matrix's row; new random numbers for each would take minutes.
    pool = np.random.default_rng(1).standard_normal(1 << 24, dtype=np.float32).astype(np.float16) * np.float16(0.02)
    kv = D // HEADS * KV_HEADS
    shapes = {"attn_q": (D, D), "attn_k": (kv, D), "attn_v": (kv, D), "attn_output": (D, D)}
    shapes |= {"ffn_gate": (F, D), "ffn_up": (F, D), "ffn_down": (D, F)}
    matrices = {"token_embd.weight": (vocabulary, D)}
    norms = ["output_norm.weight"]
    for layer in range(LAYERS):
        matrices |= {f"blk.{layer}.{name}.weight": shape for name, shape in shapes.items()}
        norms += [f"blk.{layer}.{name}.weight" for name in ("attn_norm", "ffn_norm")]
    for i, (name, shape) in enumerate(matrices.items()):
        numbers = np.resize(np.roll(pool, 7919 * i), shape[0] * shape[1])
        out.add_tensor(name, numbers.reshape(shape))
    for name in norms:
        out.add_tensor(name, np.ones(D, dtype=np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    main()
