"""Random models with heads of 64, 96 and 128, goldens around the edges of their windows, and other forms of the files.

head64, head96, head128   bf16 weights, run in float32; head64 with windows of 7, 8, 9 and 17
head64_f16                float16 weights, saved by transformers 5 itself (rope_parameters, dtype)
llama_tiny                LlamaForCausalLM, float32, no window, no head_dim in its config
long4096                  a window of 4,096 and prompts of 4,095 to 8,200 tokens

usage: make_window_goldens.py OUT_DIR [NAME...]     writes OUT_DIR/NAME, all of them without NAME
"""

import os
import sys

import torch

import float64_forward
from golden_lib import (
    MORE_POOLINGS,
    case_key,
    embeddings,
    forward,
    golden_case,
    greedy,
    load,
    nmse,
    save_goldens,
    save_weights,
    write_json,
)
from make_tiny_goldens import FIELDS, config, weights

MODELS = {
    "head64": (64, 64, 160, 2, 4, 2, 64, 320, 8, False, "bfloat16", 1, 512),
    "head96": (96, 96, 128, 2, 3, 1, 96, 256, 16, False, "bfloat16", 1, 512),
    "head128": (128, 64, 96, 2, 4, 1, 128, 256, None, False, "bfloat16", 1, 512),
    "llama_tiny": (260, 64, 160, 2, 4, 2, 16, 320, None, False, "float32", 1, 512),
    "long4096": (4096, 64, 96, 2, 4, 2, 32, 128, 4096, False, "bfloat16", 1, 16384),
}
PROMPT_LEN = 40
WINDOW = 8  # of head64: W
LONG_LENS = (4095, 4096, 4097, 6000, 8200)
LONG_ROWS = (0, 4094, 4095, 4096, 4097, 5000)  # and the last 8


def spec(name):
    return dict(zip(FIELDS, MODELS[name]))


def random_prompt(s):
    generator = torch.Generator().manual_seed(s["seed"] * 7 + 1)
    return [1] + torch.randint(3, s["vocab"], (PROMPT_LEN - 1,), generator=generator).tolist()


def write_model(name, model_dir, more_config, qk_scale=1.6):
    s = spec(name)
    os.makedirs(model_dir, exist_ok=True)
    write_json({**config(s), **more_config}, os.path.join(model_dir, "config.json"))
    write_json({"bos_token_id": 1, "eos_token_id": 2}, os.path.join(model_dir, "generation_config.json"))
    save_weights(weights(s, qk_scale), os.path.join(model_dir, "model.safetensors"))
    return s


def against_float64(model_dir, ids, window, logits):
    """NMSE of the worst row against the same weights in float64, with float32 and with exact rotation angles."""
    config, state = float64_forward.load_float64(model_dir)
    return {
        f"nmse_to_float64_with_{angles}_angles": nmse(
            logits, float64_forward.forward(config, state, ids, window, angles)[0]
        )
        for angles in ("float32", "float64")
    }


def short_prompt(model_dir, s, window, tensors):
    """The prompt of 40 tokens with everything: every layer, the parts of layer 0, 64 greedy ids, all poolings."""
    model, ids = load(model_dir, window), random_prompt(s)
    key = case_key(window, "p0")
    record = golden_case(
        model, ids, key, tensors, layers=True, inner=True, uncached=True, poolings=MORE_POOLINGS
    )
    figures = against_float64(model_dir, ids, window, tensors[key + ".logits"])
    return {key: {"dtype": "float32", "sliding_window": window, "prompt": "p0", **record, **figures}}


def window_edges(model_dir, s, tensors):
    """Prompts of 1, W - 1, W, W + 1 and 3W tokens with windows of W - 1, W, W + 1 and 2W + 1."""
    cases, prompt = {}, random_prompt(s)
    for window in (WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 1):
        model = load(model_dir, window)
        for n in (1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW):
            ids, key = prompt[:n], case_key(window, f"n{n}")
            logits, captured = forward(model, ids)
            tensors[key + ".input_ids"] = torch.tensor(ids)
            tensors[key + ".logits"] = logits
            for name, vector in embeddings(captured["final_hidden"], MORE_POOLINGS).items():
                tensors[f"{key}.embedding.{name}"] = vector
            cases[key] = {"dtype": "float32", "sliding_window": window, "prompt": f"n{n}", "n_tokens": n}
            cases[key].update(against_float64(model_dir, ids, window, logits))
    return cases


def make_heads(name, out_dir):
    model_dir = os.path.join(out_dir, name)
    s = write_model(name, model_dir, {"head_dim": spec(name)["head_dim"]})
    tensors, meta = {}, {"model": name, "seed": s["seed"]}
    cases = short_prompt(model_dir, s, s["window"], tensors)
    if name == "head64":
        cases.update(window_edges(model_dir, s, tensors))
        last = f"n{3 * WINDOW}.logits"
        right = tensors[case_key(WINDOW, last)]
        meta["nmse_if_the_window_is_off_by"] = {
            str(d): nmse(tensors[case_key(WINDOW + d, last)], right) for d in (-1, 1)
        }
    save_goldens(model_dir, tensors, {**meta, "cases": cases})


def make_head64_f16(out_dir):
    """The random numbers of head64 rounded to float16. `save_pretrained` of transformers 5 writes its own config.json."""
    s, model_dir = {**spec("head64"), "dtype": "float16"}, os.path.join(out_dir, "head64_f16")
    model = load(os.path.join(out_dir, "head64"), dtype=torch.float16)
    model.load_state_dict(weights(s))
    model.save_pretrained(model_dir)
    tensors = {}
    cases = short_prompt(model_dir, s, s["window"], tensors)
    save_goldens(model_dir, tensors, {"model": "head64_f16", "seed": s["seed"], "cases": cases})


def make_llama_tiny(out_dir):
    model_dir = os.path.join(out_dir, "llama_tiny")
    llama = dict(architectures=["LlamaForCausalLM"], model_type="llama", attention_bias=False, mlp_bias=False)
    s = write_model("llama_tiny", model_dir, llama)
    path = os.path.join(model_dir, "config.json")
    plain = {**config(s), **llama}
    del plain["sliding_window"]  # a Llama config has none
    write_json(plain, path)
    tensors = {}
    cases = short_prompt(model_dir, s, None, tensors)
    save_goldens(model_dir, tensors, {"model": "llama_tiny", "seed": s["seed"], "cases": cases})


LONG_IDS = "id[0] = 1; id[i] = 3 + ((i * 2654435761 mod 2^32) >> 16) mod (vocab - 3)"


def long_ids(n, vocab):
    return [1] + [3 + ((i * 2654435761 % 2**32) >> 16) % (vocab - 3) for i in range(1, n)]


def make_long4096(out_dir):
    model_dir = os.path.join(out_dir, "long4096")
    # 1.2: attention broad enough that the one key at the window's edge, of 4,096, changes the logits by far more than
    # 1e-9 (nmse_if_the_window_is_off_by), and that no row magnifies float32 roundings to near 1e-9: of 1.2, 1.4, 1.6
    # and 1.9 the last did (2.8e-10).
    s = write_model("long4096", model_dir, {"head_dim": spec("long4096")["head_dim"]}, qk_scale=1.2)
    window, tensors, cases, off = s["window"], {}, {}, {}
    for n in LONG_LENS:
        ids, key = long_ids(n, s["vocab"]), case_key(window, f"n{n}")
        model = load(model_dir, window)
        logits, captured = forward(model, ids)
        rows = sorted({row for row in LONG_ROWS if row < n} | set(range(n - 8, n)))
        tensors[key + ".input_ids"] = torch.tensor(ids)
        tensors[key + ".positions"] = torch.tensor(rows)
        tensors[key + ".logits_at"] = logits[rows]
        tensors[key + ".final_hidden_at"] = captured["final_hidden"][rows]
        tensors[key + ".logsumexp"] = torch.logsumexp(logits.double(), -1).float()
        for name, vector in embeddings(captured["final_hidden"]).items():
            tensors[f"{key}.embedding.{name}"] = vector
        cases[key] = {"dtype": "float32", "sliding_window": window, "prompt": f"n{n}", "n_tokens": n}
        cases[key].update(against_float64(model_dir, ids, window, logits))
        if n == LONG_LENS[0]:  # decoding across the edge of the window
            cases[key]["greedy"], cases[key]["greedy_margin"] = greedy(model, ids, 16, cached=False)
        if n > window:
            for d in (-1, 1):
                changed, _ = forward(load(model_dir, window + d), ids)
                off[f"n{n}, {d:+}"] = nmse(changed[rows], logits[rows])
    meta = {"model": "long4096", "seed": s["seed"], "input_ids": LONG_IDS, "nmse_if_the_window_is_off_by": off}
    save_goldens(model_dir, tensors, {**meta, "cases": cases})


def main(out_dir, *names):
    makers = {
        "head64": lambda: make_heads("head64", out_dir),
        "head96": lambda: make_heads("head96", out_dir),
        "head128": lambda: make_heads("head128", out_dir),
        "head64_f16": lambda: make_head64_f16(out_dir),
        "llama_tiny": lambda: make_llama_tiny(out_dir),
        "long4096": lambda: make_long4096(out_dir),
    }
    for name in names or makers:
        makers[name]()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
