#!/usr/bin/env python3
"""Logits of transformers for one prompt, to hold komt's `--example logits` against.

usage: tools/reference-logits.py MODEL_DIR OUT.safetensors (--ids FILE | --text TEXT)
           [--layers] [--window N|none] [--dtype float32|float64|bfloat16|float16] [--compare KOMT.safetensors]

OUT.safetensors gets input_ids [T] (i64) and logits [T, vocab] (f32); with --layers also embeddings, layer.N.output
(the residual stream after layer N) and final_hidden (after the last norm), [T, dim] each. The weights are converted to
--dtype and run in it, eagerly, in one pass without a cache, on the CPU. FILE holds token ids separated by white space
or commas, with [ ] or without: what a program prints for a list will do. --text goes through the directory's
tokenizer.json as it stands, with the special tokens that it adds.

--compare prints, for each tensor that both files have, the normalised mean squared error of the worst row, and exits
with 1 when one is above 1e-9, or the ids differ.

Needs tools/requirements.txt.
"""

import argparse
import os
import re
import sys

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

TOLERANCE = 1e-9


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir")
    parser.add_argument("out")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--ids", metavar="FILE")
    prompt.add_argument("--text")
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--window", default="config", metavar="N|none")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64", "bfloat16", "float16"))
    parser.add_argument("--compare", metavar="KOMT.safetensors")
    return parser.parse_args()


def read_ids(path):
    with open(path, encoding="utf-8") as file:
        text = file.read().strip().removeprefix("[").removesuffix("]")
    words = re.split(r"[\s,]+", text.strip(", \n"))
    try:
        return [int(word) for word in words]
    except ValueError as error:
        sys.exit(f"{path}: not a list of token ids: {error}")


def load(model_dir, window, dtype):
    config = AutoConfig.from_pretrained(model_dir)
    if window != "config":
        config.sliding_window = None if window == "none" else int(window)
    return AutoModelForCausalLM.from_pretrained(
        model_dir, config=config, dtype=getattr(torch, dtype), attn_implementation="eager"
    ).eval()


@torch.no_grad()
def reference(model, ids, layers):
    out, hooks = {"input_ids": torch.tensor(ids, dtype=torch.int64)}, []

    def capture(module, name):
        def hook(_module, _args, output):
            output = output[0] if isinstance(output, tuple) else output
            out[name] = output[0].float().contiguous()

        hooks.append(module.register_forward_hook(hook))

    if layers:
        capture(model.model.embed_tokens, "embeddings")
        for i, layer in enumerate(model.model.layers):
            capture(layer, f"layer.{i}.output")
        capture(model.model.norm, "final_hidden")
    logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    out["logits"] = logits.float().contiguous()
    return out


def compare(mine, path):
    """Whether the tensors of `path` are the reference's, within TOLERANCE."""
    theirs = load_file(path)
    if "input_ids" in theirs and theirs["input_ids"].flatten().tolist() != mine["input_ids"].tolist():
        print(f"input_ids differ: {mine['input_ids'].tolist()} against {theirs['input_ids'].flatten().tolist()}")
        return False
    shared, good = [name for name in mine if name in theirs and name != "input_ids"], True
    if not shared:
        print(f"{path} has none of {', '.join(name for name in mine if name != 'input_ids')}")
        return False
    for name in shared:
        want, got = mine[name].double(), theirs[name].double()
        if got.shape != want.shape:
            print(f"{name}: shape {list(got.shape)}, expected {list(want.shape)}")
            good = False
            continue
        rows = (got - want).square().sum(-1) / want.square().sum(-1).clamp(min=1e-300)
        worst = float(rows.max())
        in_bound = worst <= TOLERANCE  # False for NaN too
        good &= in_bound
        print(f"{name}: NMSE {worst:.1e} at row {int(rows.argmax())} of {len(rows)}{'' if in_bound else '   TOO LARGE'}")
    return good


def main():
    args = arguments()
    if not os.path.isdir(args.model_dir):
        sys.exit(f"{args.model_dir} is not a directory")
    if args.ids:
        ids = read_ids(args.ids)
    else:  # not AutoTokenizer: it may rebuild the tokenizer from its class and tokenise differently
        tokenizer = os.path.join(args.model_dir, "tokenizer.json")
        if not os.path.isfile(tokenizer):
            sys.exit(f"{tokenizer} is missing: give --ids")
        ids = Tokenizer.from_file(tokenizer).encode(args.text).ids
    model = load(args.model_dir, args.window, args.dtype)
    if not ids or min(ids) < 0 or max(ids) >= model.config.vocab_size:
        sys.exit(f"token ids must be at least one, each below {model.config.vocab_size}: {ids}")
    mine = reference(model, ids, args.layers)
    save_file(mine, args.out)
    print(f"{args.out}: {len(ids)} tokens, {', '.join(mine)}")
    if args.compare and not compare(mine, args.compare):
        sys.exit(1)


if __name__ == "__main__":
    main()
