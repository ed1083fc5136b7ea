#!/usr/bin/env python3
"""Blocks of each kind with what they decode to, by the package gguf (MIT): blocks.json.

usage: make_blocks.py OUT.json        (Python 3.11, numpy 2.4.6, gguf 0.19.0)

The bytes are random, but for the f16 scales, which are set to numbers of both signs; what they mean is
gguf.quants.dequantize's answer, as the bits of f32.
"""

import json
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# Where a block has its f16 numbers.
SCALES = {
    "F32": [], "F16": [0], "BF16": [],
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}  # fmt: skip


def main(out):
    rng = np.random.default_rng(4)
    cases = {}
    for name, places in SCALES.items():
        kind = GGMLQuantizationType[name]
        columns, size = GGML_QUANT_SIZES[kind]
        n_blocks = 8 if columns == 1 else 2
        if name in ("F32", "BF16"):
            raw = rng.standard_normal(n_blocks).astype("<f4").view(np.uint8).reshape(n_blocks, 4)[:, -size:].copy()
        else:
            raw = rng.integers(0, 256, (n_blocks, size), dtype=np.uint8)
        for at in places:
            raw[:, at : at + 2] = rng.normal(0, 0.1, (n_blocks, 1)).astype("<f2").view(np.uint8)
        if name in ("F32", "F16"):
            values = raw.reshape(-1).view("<f4" if name == "F32" else "<f2").astype("<f4")
        else:
            values = dequantize(raw.reshape(1, -1), kind).reshape(-1).astype("<f4")
        cases[name] = {"bytes": raw.tobytes().hex(), "f32": values.tobytes().hex()}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(cases, file, indent=0)
        file.write("\n")


main(sys.argv[1])
