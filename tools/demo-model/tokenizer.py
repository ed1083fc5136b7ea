"""Trains the demo model's BPE on build/train.jsonl and writes the tokenizer files of the model directory.

The layout of tokenizer.json is the one that Llama and Mistral checkpoints of 2023 ship: a normalizer that prepends and
replaces spaces, no pre-tokenizer, byte fallback. The ids are compared with SentencePiece on every text of the corpus.

usage: python tokenizer.py [--data build] [--out ../../demo-model]"""
import argparse
import io
import json
import os

import sentencepiece as spm
from tokenizers import Tokenizer

from generate import template
from model import CONFIG

SPECIAL = ["<unk>", "<s>", "</s>"]


def read_rows(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def write_json(path, value, compact=False):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, **({"separators": (",", ":")} if compact else {"indent": 2}))
        f.write("\n")


def train(rows):
    """A SentencePiece BPE model. Newlines stay out of the pieces (they are byte tokens): it trains on lines."""
    lines = [line for row in rows for t in (template(row["instruction"]), row["answer"]) for line in t.split("\n") if line]
    blob = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=blob, model_type="bpe", vocab_size=CONFIG["vocab_size"],
        byte_fallback=True, character_coverage=0.9998, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True, unk_id=0, bos_id=1, eos_id=2, num_threads=1, minloglevel=2)
    return blob.getvalue()


def pieces(sp):
    return [sp.id_to_piece(i) for i in range(sp.get_piece_size())]


def merges(sp):
    """Every way to build a piece from two pieces, best score first: the order in which SentencePiece merges."""
    ids = {p: i for i, p in enumerate(pieces(sp))}
    found = []
    for p, i in ids.items():
        if i < 3 + 256:  # special and byte tokens are never merged
            continue
        cuts = [(p[:k], p[k:]) for k in range(1, len(p))]
        cuts = sorted((c for c in cuts if c[0] in ids and c[1] in ids), key=lambda c: (ids[c[0]], ids[c[1]]))
        found += [(sp.get_score(i), c) for c in cuts]
    found.sort(key=lambda m: -m[0])
    return [f"{a} {b}" for _, (a, b) in found]


def tokenizer_json(sp):
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    bos = lambda kind: {"SpecialToken": {"id": "<s>", "type_id": kind}}
    seq = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": t, **special} for i, t in enumerate(SPECIAL)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos(0), seq("A", 0)],
            "pair": [bos(0), seq("A", 0), bos(1), seq("B", 1)],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
                  "vocab": {p: i for i, p in enumerate(pieces(sp))}, "merges": merges(sp)},
    }


def write_configs(out):
    token = lambda t: {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    write_json(f"{out}/tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False,
        "added_tokens_decoder": {str(i): {**token(t), "special": True} for i, t in enumerate(SPECIAL)},
        "bos_token": "<s>", "clean_up_tokenization_spaces": False, "eos_token": "</s>", "legacy": True,
        "model_max_length": CONFIG["max_position_embeddings"], "pad_token": None, "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>", "use_default_system_prompt": False})
    write_json(f"{out}/special_tokens_map.json", {k: token(t) for k, t in zip(("bos_token", "eos_token", "unk_token"), ("<s>", "</s>", "<unk>"))})
    write_json(f"{out}/config.json", CONFIG)
    write_json(f"{out}/generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})


def verify(sp, path, rows):
    """tokenizer.json must give SentencePiece's ids, on corpus text and on text that the corpus never saw."""
    hf = Tokenizer.from_file(path)
    odd = ["", " ", "  두 칸  ", "탭\t과\n줄", "漢字 ひらがな 🙂👍🏽", "뷁쀍 쫣", "ÀÉ ß ñ", "a  b   c", "1234567890 3.14", "[INST][/INST]", "‘따옴표’ — … ·", "ㄱㄴㄷ ㅏㅑ", "\x00\x7f"]
    texts = odd + [t for row in rows for t in (template(row["instruction"]), row["answer"], row["instruction"] + "\n" + row["answer"])]
    bad = [t for t in texts if hf.encode(t).ids != [1] + sp.encode(t)]
    lost = [t for t in texts if t.strip() and "\x00" not in t and hf.decode(hf.encode(t).ids) != t]
    print(f"{len(texts)} texts: {len(bad)} with other ids than SentencePiece, {len(lost)} not decoded to themselves", bad[:3], lost[:3])
    assert not bad


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", default="build")
    p.add_argument("--out", default="../../demo-model")
    args = p.parse_args()
    rows = read_rows(f"{args.data}/train.jsonl")
    os.makedirs(args.out, exist_ok=True)
    sp = spm.SentencePieceProcessor(model_proto=train(rows[:20000]))  # enough text to rank the merges
    assert pieces(sp)[:4] == SPECIAL + ["<0x00>"] and len(pieces(sp)) == CONFIG["vocab_size"]
    path = f"{args.out}/tokenizer.json"
    write_json(path, tokenizer_json(sp), compact=True)
    write_configs(args.out)
    verify(sp, path, rows[::5] + read_rows(f"{args.data}/heldout.jsonl"))
    n, chars = sum(len(sp.encode(r["answer"])) for r in rows[:5000]), sum(len(r["answer"]) for r in rows[:5000])
    print(f"{path}: {os.path.getsize(path)} bytes, {chars / n:.2f} characters per token")


if __name__ == "__main__":
    main()
