#!/usr/bin/env python3
"""Makes the goldens of the formats that the library decodes but does not encode, decoded by the PyPI package gguf.

usage: make.py OUT_DIR
Needs numpy, gguf and the program zstd.

Each <type>.gguf.zst holds v.q (blocks) and v.y (their values) for two vectors v:
points: every point of the format's grid in order, with d = 1; of NVFP4 every scale with every code
random: random bytes, in the first eight blocks with an unusual d each
"""
import subprocess, sys
import numpy as np
import gguf
from gguf import GGMLQuantizationType as T

# Type: points of its grid, points of a block, place of d (None: spread over the scales, or there is none).
TYPES = {"IQ1_S": (2048, 32, 0), "IQ1_M": (2048, 32, None), "IQ2_XXS": (256, 32, 0), "IQ2_XS": (512, 32, 0),
         "IQ2_S": (1024, 32, 0), "IQ3_XXS": (256, 64, 0), "IQ3_S": (512, 64, 0), "NVFP4": (0, 0, None)}

UNUSUAL = [0x7C00, 0xFC00, 0x7E00, 0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF]


def set_d(name, block, d):
    """block: uint8 view of one block; d: the bits of an f16"""
    if name == "IQ1_M":
        for i in range(4):
            block[49 + 2 * i] = block[49 + 2 * i] & 15 | (d >> 4 * i & 15) << 4
    else:
        block[0], block[1] = d & 255, d >> 8


def put_index(name, block, i, index):
    """point i of the block"""
    low, high = index & 255, index >> 8
    if name == "IQ2_XXS":
        block[2 + i // 4 * 8 + i % 4] = low
    elif name == "IQ2_XS":
        block[2 + 2 * i], block[3 + 2 * i] = low, high
    elif name == "IQ1_M":
        block[i] = low
        block[32 + i // 2] |= high << i % 2 * 4
    else:
        block[2 + i] = low
        if name == "IQ2_S":
            block[66 + i // 4] |= high << i % 4 * 2
        elif name == "IQ3_S":
            block[66 + i // 8] |= high << i % 8
        elif name == "IQ1_S":
            at = i % 4 * 3
            block[34 + i // 4 * 2] |= high << at & 255
            block[35 + i // 4 * 2] |= high << at >> 8


def points(name, size):
    if name == "NVFP4":
        codes = [(2 * j + k) << 4 | (2 * j + k + 8) % 16 for j in range(4) for k in range(2)]
        blocks = [[4 * b + s for s in range(4)] + codes * 4 for b in range(64)]
        return np.array(blocks, np.uint8)
    total, each, _ = TYPES[name]
    blocks = np.zeros((total // each, size), np.uint8)
    for i in range(total):
        put_index(name, blocks[i // each], i % each, i)
    for block in blocks:
        set_d(name, block, 0x3C00)
    return blocks


def random(name, size, rng):
    blocks = rng.integers(0, 256, (64 if name == "NVFP4" else 16, size), np.uint8)
    if name != "NVFP4":
        ordinary = np.float16(rng.uniform(-0.02, 0.02, len(blocks))).view(np.uint16)
        for i, block in enumerate(blocks):
            set_d(name, block, UNUSUAL[i] if i < len(UNUSUAL) else int(ordinary[i]))
    return blocks


def main(folder):
    rng = np.random.Generator(np.random.PCG64(40))
    for name in TYPES:
        kind = T[name]
        length, size = gguf.GGML_QUANT_SIZES[kind]
        path = f"{folder}/{name}.gguf"
        writer = gguf.GGUFWriter(path, "golden")
        writer.add_uint32("golden.block_length", length)
        writer.add_uint32("golden.block_bytes", size)
        for v, blocks in [("points", points(name, size)), ("random", random(name, size, rng))]:
            q = blocks.reshape(-1)
            y = gguf.quants.dequantize(q.reshape(1, -1), kind).reshape(-1)
            assert y.dtype == np.float32 and y.size == len(blocks) * length
            writer.add_tensor(f"{v}.q", q, raw_dtype=kind)
            writer.add_tensor(f"{v}.y", y)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        subprocess.run(["zstd", "-q", "-f", "--rm", "--ultra", "-22", path], check=True)


main(sys.argv[1])
