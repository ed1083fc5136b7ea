"""Writes tokenizer.json (the layout of 2023) from the SentencePiece model that mistral_common ships.

    python make_tokenizer.py tokenizer.json

needs: mistral_common, sentencepiece, protobuf
"""

import json
import os
import sys

import mistral_common
from sentencepiece import sentencepiece_model_pb2

SPECIAL = ["<unk>", "<s>", "</s>"]


def merges_of(pieces, vocab):
    """SentencePiece has scores where BPE has an order of merges: every way to cut a piece into two pieces, best first."""
    merges = []
    for piece in pieces:
        cuts = [(piece.piece[:k], piece.piece[k:]) for k in range(1, len(piece.piece))]
        cuts = [(a, b) for a, b in cuts if a in vocab and b in vocab]
        cuts.sort(key=lambda cut: (vocab[cut[0]], vocab[cut[1]]))
        merges += [(piece.score, f"{a} {b}") for a, b in cuts]
    merges.sort(key=lambda merge: merge[0], reverse=True)  # Stable.
    return [merge for _, merge in merges]


def main(out):
    model = sentencepiece_model_pb2.ModelProto()
    with open(os.path.join(os.path.dirname(mistral_common.__file__), "data", "tokenizer.model.v1"), "rb") as f:
        model.ParseFromString(f.read())
    vocab = {piece.piece: i for i, piece in enumerate(model.pieces)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}

    def bos(type_id):
        return {"SpecialToken": {"id": "<s>", "type_id": type_id}}

    def text(name, type_id):
        return {"Sequence": {"id": name, "type_id": type_id}}

    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": content, **flags} for i, content in enumerate(SPECIAL)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos(0), text("A", 0)],
            "pair": [bos(0), text("A", 0), bos(1), text("B", 1)],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": merges_of(model.pieces, vocab),
        },
    }
    with open(out, "w", encoding="utf-8") as f:
        json.dump(tokenizer, f, ensure_ascii=False, indent=2)


main(sys.argv[1])
