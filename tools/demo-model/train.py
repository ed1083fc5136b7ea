"""Trains the demo model on build/train.jsonl and writes model.safetensors (bfloat16) into the model directory.

Texts are packed into rows of ROW tokens behind a block-diagonal mask: nothing is padded, and no text sees another one.
The learning rate follows a cosine over --steps; when --minutes run out first, it follows the clock instead, so that a slow
machine ends with a finished schedule, too.

usage: python train.py [--steps 3480] [--minutes 55] [--threads 1] [--data build] [--out ../../demo-model]"""
import argparse
import json
import math
import random
import time

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from generate import template
from model import CONFIG, Model, block_mask, hf_tensors
from tokenizer import read_rows, write_json

ROW, BATCH = 384, 8
PEAK, FLOOR, WARMUP = 3e-3, 0.02, 150
PROMPT_WEIGHT = 0.1  # the answers count; a little weight on the prompts teaches their words sooner


def encode(tok, row):
    """The ids that generation meets: the prompt encoded alone, then the answer encoded alone, then </s>."""
    prompt = tok.encode(template(row["instruction"])).ids
    answer = tok.encode(row["answer"], add_special_tokens=False).ids
    return prompt + answer + [CONFIG["eos_token_id"]], len(prompt)


def pack(samples, rng, look=64):
    """One epoch of rows: takes, out of the next `look` texts, the longest that still fits."""
    order = list(range(len(samples)))
    rng.shuffle(order)
    pool, rows, row, room = [], [], [], ROW
    while order or pool:
        while order and len(pool) < look:
            pool.append(order.pop())
        fit = [i for i in pool if len(samples[i][0]) <= room]
        if fit:
            best = max(fit, key=lambda i: len(samples[i][0]))
            pool.remove(best)
            row.append(best)
            room -= len(samples[best][0])
        if row and (not fit or not (order or pool)):
            rows.append(row)
            row, room = [], ROW
    rng.shuffle(rows)
    return rows


def batch(samples, rows):
    ids, target = torch.zeros(len(rows), ROW, dtype=torch.long), torch.zeros(len(rows), ROW, dtype=torch.long)
    weight, doc = torch.zeros(len(rows), ROW), torch.full((len(rows), ROW), -1)
    for b, row in enumerate(rows):
        at = 0
        for i in row:
            t, n = samples[i]
            end, x = at + len(t), torch.tensor(t)
            ids[b, at:end], doc[b, at:end] = x, i
            target[b, at:end - 1] = x[1:]
            weight[b, at:at + n - 1], weight[b, at + n - 1:end - 1] = PROMPT_WEIGHT, 1.0
            at = end
    return ids, target, weight, block_mask(doc)


def save(model, path):
    save_file(hf_tensors(model), path, metadata={"format": "pt"})


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--steps", type=int, default=3480)
    p.add_argument("--minutes", type=float, default=55)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--data", default="build")
    p.add_argument("--out", default="../../demo-model")
    args = p.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = random.Random(args.seed)
    tok = Tokenizer.from_file(f"{args.out}/tokenizer.json")
    samples = [encode(tok, row) for row in read_rows(f"{args.data}/train.jsonl")]
    long = sum(len(t) > ROW for t, _ in samples)
    samples = [s for s in samples if len(s[0]) <= ROW]
    total = sum(len(t) for t, _ in samples)
    model = Model()
    params = sum(x.numel() for x in model.parameters())
    print(f"{params} parameters, {len(samples)} texts, {total / 1e6:.2f} M tokens, {long} too long and left out", flush=True)
    matrices = [x for x in model.parameters() if x.dim() == 2]
    norms = [x for x in model.parameters() if x.dim() == 1]
    opt = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.05}, {"params": norms, "weight_decay": 0.0}],
                            lr=PEAK, betas=(0.9, 0.95), fused=True)
    start, step, seen, mean, rows = time.time(), 0, 0, None, []
    while True:
        done = max(step / args.steps, (time.time() - start) / (60 * args.minutes))
        if done >= 1:
            break
        if len(rows) < BATCH:
            rows += pack(samples, rng)
        take, rows = rows[:BATCH], rows[BATCH:]
        ids, target, weight, mask = batch(samples, take)
        rate = PEAK * min(1, (step + 1) / WARMUP) * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done)))
        for group in opt.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model.loss(ids, target, weight, mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + sum(len(samples[i][0]) for r in take for i in r)
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 0:
            t = time.time() - start
            save(model, f"{args.data}/checkpoint.safetensors")
            print(f"{step} {t:.0f}s loss {mean:.4f} lr {rate:.2e} {seen / t:.0f} tokens/s", flush=True)
    save(model, f"{args.out}/model.safetensors")
    report = {"parameters": params, "texts": len(samples), "train_tokens": total, "steps": step, "tokens_seen": seen,
              "minutes": round((time.time() - start) / 60, 1), "threads": args.threads, "final_loss": round(mean, 4)}
    write_json(f"{args.data}/train_report.json", report)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
