"""Writes build/train.jsonl and build/heldout.jsonl. Deterministic: the seed and the material decide every byte.

usage: python generate.py [--pairs 60000] [--seed 1] [--out build]"""
import argparse
import hashlib
import json
import os
import random
from collections import Counter

import corpus_en
import corpus_ko

CARD_PROMPT = "제주도를 1박2일로 혼자 여행하려고 하는데 여행 코스를 만들어줘"
HELD_OUT_PERCENT = 3
# One answer per instruction, but more for the few short instructions that would otherwise be drowned.
REPEATS = {"hello": 30, "why": 4, "animal": 3, "country": 2}
# The combination that the card's prompt asks for is held out in every wording, not only in this one.
ALWAYS_HELD_OUT = {"ko travel 제주도 1박2일 혼자"}


def template(instruction):
    """The komt prompt; the tokenizer puts BOS in front."""
    return f"[INST]{instruction} [/INST]"


def held_out(key):
    digest = hashlib.sha256(key.encode()).digest()
    return key in ALWAYS_HELD_OUT or int.from_bytes(digest[:4], "big") % 1000 < HELD_OUT_PERCENT * 10


def pairs(count, seed):
    """(instruction, answer) pairs with the language and the key."""
    r = random.Random(seed)
    tasks = [(lang, f, w) for lang, m in (("ko", corpus_ko), ("en", corpus_en)) for f, w in m.TASKS]
    weights = [w for *_, w in tasks]
    used, made = Counter(), 0
    while made < count:
        lang, f, _ = r.choices(tasks, weights)[0]
        q, a, key = f(r)
        if used[q] < REPEATS.get(key.split()[0], 1):  # the small grammars run dry and leave room to the large ones
            used[q] += 1
            made += 1
            yield {"instruction": q, "answer": a, "lang": lang, "key": f"{lang} {key}"}


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--pairs", type=int, default=60000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--out", default="build")
    args = p.parse_args()
    os.makedirs(args.out, exist_ok=True)
    split = {"train": [], "heldout": []}
    for row in pairs(args.pairs, args.seed):
        split["heldout" if held_out(row["key"]) else "train"].append(row)
    train_q = {row["instruction"] for row in split["train"]}
    assert CARD_PROMPT not in train_q and not any(row["instruction"] in train_q for row in split["heldout"])
    for name, rows in split.items():
        path = os.path.join(args.out, name + ".jsonl")
        with open(path, "w", encoding="utf-8") as f:
            for row in rows:
                f.write(json.dumps(row, ensure_ascii=False) + "\n")
        text = sum(len((row["instruction"] + row["answer"]).encode()) for row in rows)
        print(f"{path}: {len(rows)} pairs, {text / 1e6:.1f} MB of text, {sum(row['lang'] == 'ko' for row in rows)} Korean")


if __name__ == "__main__":
    main()
