#!/usr/bin/env python3
"""Packs files for tests/data.

    pip install numpy gguf zstandard
    python pack.py folder FOLDER         FOLDER.tar.zst: many files that resemble each other
    python pack.py planes FILE           FILE.planes.zst: a file of 4-byte words
    python pack.py round BITS FILE       rounds the tensors *.logits of a GGUF in place to multiples of 2^-BITS

The packed file comes beside the given one, which stays. The same input gives the same bytes.
"""
import io
import pathlib
import sys
import tarfile

import gguf
import numpy as np
import zstandard


def compress(data):
    level = zstandard.ZstdCompressionParameters.from_level(22, source_size=len(data), window_log=25)
    return zstandard.ZstdCompressor(compression_params=level).compress(data)


def folder(path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            entry = tarfile.TarInfo(file.relative_to(path).as_posix())
            entry.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(entry, content)
    return compress(buffer.getvalue())


def planes(path):
    """The first bytes of all words, then the second ones and so on; at last the bytes that make no word."""
    data = np.fromfile(path, np.uint8)
    whole = len(data) // 4 * 4
    return compress(data[:whole].reshape(-1, 4).T.tobytes() + data[whole:].tobytes())


def save(writer, path):
    """Writes what a GGUFWriter for `path` holds, packed."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_name(path.name + ".planes.zst").write_bytes(planes(path))
    path.unlink()


def round_logits(path, bits):
    data = np.fromfile(path, np.uint8)
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name.endswith("logits"):
            logits = data[tensor.data_offset :][: tensor.n_bytes].view(np.float32)
            logits[:] = np.round(logits * 2**bits) / 2**bits
    data.tofile(path)


def main():
    what, path = sys.argv[1], pathlib.Path(sys.argv[-1])
    if what == "round":
        round_logits(path, int(sys.argv[2]))
    elif what == "planes":
        path.with_name(path.name + ".planes.zst").write_bytes(planes(path))
    else:
        path.with_name(path.name + ".tar.zst").write_bytes(folder(path))


if __name__ == "__main__":
    main()
