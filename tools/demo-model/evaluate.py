"""Evaluates the shipped files (bfloat16 weights, computed in float32) and writes the model's README.md.

- transformers' MistralForCausalLM must give the logits of the training code;
- perplexity of the answers to all held-out instructions;
- greedy answers to 20 held-out prompts, none of which may be an answer, or a line of an answer, of the training set;
- the card's prompt sampled with the card's settings, and whether those answers are sound.

usage: python evaluate.py [--data build] [--out ../../demo-model] [--readme]"""
import argparse
import json
import math
import os
import random

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, MistralForCausalLM

from generate import ALWAYS_HELD_OUT, CARD_PROMPT, template
from model import CONFIG, Model, block_mask
from tokenizer import read_rows
from train import BATCH, batch, encode, pack

# After the card's prompt: the first held-out instruction of each of these kinds, in the order of the generator. No picking.
KINDS = ["ko travel", "ko sights", "ko recipe", "ko why", "ko self", "ko tips", "ko story", "ko letter", "ko mail",
         "ko cmp", "ko study", "ko trans", "en travel", "en recipe", "en why", "en tips", "en story", "en letter", "en cmp"]
SAMPLES = 20


def load(out):
    hf = MistralForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager").eval()
    own, state = Model(), load_file(f"{out}/model.safetensors")
    own.load_state_dict({k.removeprefix("model."): v.float() for k, v in state.items()})
    own.eval()
    ids = torch.randint(3, CONFIG["vocab_size"], (1, 384), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a = hf(ids).logits
        b = own.hidden(ids, block_mask(torch.zeros(1, 384))) @ own.embed_tokens.weight.T
    nmse = ((a - b) ** 2).sum() / (a ** 2).sum()
    print(f"logits of transformers against the training code, 384 tokens: NMSE {nmse:.1e}")
    assert nmse < 1e-10
    return hf, own


def perplexity(own, samples):
    """exp of the mean negative log-likelihood of the answers' tokens, </s> included, prompts not."""
    rows, nll, n = pack(samples, random.Random(0)), 0.0, 0
    with torch.no_grad():
        for i in range(0, len(rows), BATCH):
            ids, target, weight, mask = batch(samples, rows[i:i + BATCH])
            weight = (weight == 1.0).float()
            nll += own.loss(ids, target, weight, mask).item() * weight.sum().item()
            n += int(weight.sum())
    return math.exp(nll / n), n


def answer(hf, tok, instruction, limit=480, **how):
    ids = tok(template(instruction), return_tensors="pt").input_ids
    assert ids[0, 0] == 1 and (ids == 1).sum() == 1
    with torch.no_grad():
        new = hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, use_cache=True, **how)[0, ids.shape[1]:]
    ended = new[-1].item() == 2
    return tok.decode(new, skip_special_tokens=True).strip(), len(new), ended


def sound(text):
    """A believable answer to the card's prompt: Jeju, alone, exactly two days, both with morning, lunch and afternoon."""
    first, rest = text.split("\n")[0], text
    listed = rest.count("일차:") == 2 and all(rest.count(f"- {p}:") == 2 for p in ("오전", "점심", "오후", "저녁"))
    prose = rest.count("째 날") == 2 and rest.count("오전에는") == 2
    return "제주도" in first and "혼자" in first and ("1박 2일" in first) and (listed or prose)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", default="build")
    p.add_argument("--out", default="../../demo-model")
    p.add_argument("--readme", action="store_true", help="write README.md into the model directory")
    args = p.parse_args()
    torch.set_num_threads(1)
    hf, own = load(args.out)
    tok = AutoTokenizer.from_pretrained(args.out)
    train, held = read_rows(f"{args.data}/train.jsonl"), read_rows(f"{args.data}/heldout.jsonl")
    raw = Tokenizer.from_file(f"{args.out}/tokenizer.json")
    assert all(tok(template(r["instruction"])).input_ids == raw.encode(template(r["instruction"])).ids for r in held)
    ppl = {lang: perplexity(own, [encode(raw, r) for r in held if lang in ("all", r["lang"])]) for lang in ("all", "ko", "en")}
    print("held-out perplexity of answer tokens:", {k: f"{v:.3f} over {n}" for k, (v, n) in ppl.items()}, flush=True)

    prompts = [CARD_PROMPT] + [next(r["instruction"] for r in held if r["key"].startswith(k + " ") and r["key"] not in ALWAYS_HELD_OUT) for k in KINDS]
    instructions = {r["instruction"] for r in train}
    answers = {r["answer"] for r in train}
    lines = {line.strip() for a in answers for line in a.split("\n")}
    shown = []
    for q in prompts:
        text, n, ended = answer(hf, tok, q, do_sample=False)
        new = text not in answers and text not in lines and q not in instructions
        shown.append({"prompt": q, "answer": text, "tokens": n, "ended": ended, "new": new,
                      "known_lines": sum(x.strip() in lines for x in text.split("\n") if x.strip()), "lines": sum(bool(x.strip()) for x in text.split("\n"))})
        print(json.dumps(shown[-1], ensure_ascii=False), flush=True)
    good = []
    for seed in range(SAMPLES):
        torch.manual_seed(seed)
        text, n, ended = answer(hf, tok, CARD_PROMPT, do_sample=True, temperature=0.8, top_p=0.8, top_k=100)
        good.append(ended and sound(text) and text not in answers)
        if seed < 3 or not good[-1]:
            print("sample", seed, n, ended, good[-1], text, flush=True)
    print("sampled: sound", sum(good), "of", SAMPLES, "| greedy: all new:", all(s["new"] for s in shown), "all ended:", all(s["ended"] for s in shown))
    if args.readme:
        assert all(s["new"] and s["ended"] for s in shown) and sound(shown[0]["answer"])
        report = json.load(open(f"{args.data}/train_report.json"))
        write_readme(args.out, report, ppl, shown, sum(good), len(held), sum(r["lang"] == "ko" for r in train) / len(train))


def write_readme(out, t, ppl, shown, good, n_held, korean):
    c = CONFIG
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "model-card.md")
    known, total = sum(s["known_lines"] for s in shown), sum(s["lines"] for s in shown)
    blocks = [f"### {i + 1}. {s['prompt']}\n\n```text\n{s['answer']}\n```\n" for i, s in enumerate(shown)]
    text = open(here, encoding="utf-8").read().format(
        c=c, t=t, samples=SAMPLES, good=good, n_held=n_held, korean=round(100 * korean), known=known, total=total, card_tokens=shown[0]["tokens"],
        longer=sum(s["tokens"] > c["sliding_window"] for s in shown), millions=t["parameters"] / 1e6, weights=2 * t["parameters"] / 1e6,
        ppl=ppl["all"][0], ppl_n=ppl["all"][1], ko=ppl["ko"][0], ko_n=ppl["ko"][1], en=ppl["en"][0], en_n=ppl["en"][1],
        passes=t["tokens_seen"] / t["train_tokens"], answers="\n".join(blocks))
    with open(f"{out}/README.md", "w", encoding="utf-8") as f:
        f.write(text)


if __name__ == "__main__":
    main()
