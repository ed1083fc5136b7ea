"""Extra sampling goldens: whole option sets through the processor list that transformers' `generate` itself builds.

usage: python make_extra_goldens.py        (in this folder; needs requirements.txt and sampling_goldens.safetensors)

Where 80_sampling_goldens.py runs processors that it chose and ordered itself, this script sets a GenerationConfig and
asks a (tiny, random) Mistral model for `_get_logits_processor`: the order, the defaults and what is switched off by
which value are transformers' own. Option names in the output are komt-sample's.

One thing is decided here that `generate` leaves open: torch.sort is asked to be stable. Otherwise it depends on the
CPU's vector width which of several equal logits top_p removes.
"""
import functools
import json
import math
import os

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, MistralConfig, MistralForCausalLM

torch.sort = functools.partial(torch.sort, stable=True)
HERE = os.path.dirname(os.path.abspath(__file__))
RNG = torch.Generator().manual_seed(20261123)
STORE_AT_MOST = 400  # kept tokens of a long row; more are told as a count and a sum

# The option in transformers for each of komt-sample's, except logit_bias.
NAMES = {
    "repetition_penalty": "repetition_penalty", "no_repeat_ngram": "no_repeat_ngram_size",
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "typical_p": "typical_p",
    "epsilon_cutoff": "epsilon_cutoff", "eta_cutoff": "eta_cutoff",
}


def randn(n, scale):
    return torch.randn(n, generator=RNG) * scale


def pick(values):
    return values[int(torch.randint(0, len(values), (1,), generator=RNG))]


def rows():
    """The rows of logits by name. Names starting with "uniform" have all logits equal."""
    halves = (randn(64, 3.0) * 2).round() / 2  # ties everywhere
    masked = randn(500, 3.0)
    masked[torch.randperm(500, generator=RNG)[:200]] = -math.inf
    out = {
        "halves64": halves, "masked500": masked, "small_spread256": randn(256, 0.3), "wide400": randn(400, 8.0),
        "n4096": randn(4096, 2.5),
        "two": torch.tensor([0.0, 1.0]), "one": torch.tensor([-3.5]),
    }
    for n in (8, 10, 16, 100):
        out[f"uniform{n}"] = torch.zeros(n)
    return out


def processors(model, params):
    sample = params["temperature"] != 0
    config = GenerationConfig(do_sample=sample)
    for ours, theirs in NAMES.items():
        if ours in params and (sample or ours in ("repetition_penalty", "no_repeat_ngram")):
            setattr(config, theirs, params[ours])
    config.top_k = params.get("top_k", 0)  # GenerationConfig has a default of its own here
    if params.get("logit_bias"):
        config.sequence_bias = [[[token], bias] for token, bias in params["logit_bias"]]
    return model._get_logits_processor(config, input_ids_seq_length=1, device="cpu")


def random_params(n, greedy):
    p = {"temperature": 0.0 if greedy else pick([0.3, 0.7, 0.8, 1.0, 1.0, 1.3, 2.0])}
    maybe = lambda: pick([True, False])
    if maybe():
        ids = torch.randperm(n, generator=RNG)[: min(6, max(1, n // 2))].tolist()
        p["logit_bias"] = [[i, pick([-5.0, -0.25, 0.5, 1.75, 4.0, -math.inf])] for i in ids]
        if all(math.isinf(b) for _, b in p["logit_bias"]):
            p["logit_bias"][0][1] = 2.0
    choices = {
        "repetition_penalty": [0.8, 1.05, 1.2, 1.7], "no_repeat_ngram": [2, 3], "top_k": [3, 17, 40, 100, 350],
        "top_p": [0.3, 0.6, 0.8, 0.9, 0.97], "min_p": [0.001, 0.02, 0.1], "typical_p": [0.3, 0.7, 0.95],
        "epsilon_cutoff": [3e-4, 2e-3, 0.01], "eta_cutoff": [3e-4, 2e-3, 0.02],
    }
    for name, values in choices.items():
        if maybe() and not (greedy and name not in ("repetition_penalty", "no_repeat_ngram")):
            p[name] = pick(values)
    return p


def cases(all_rows):
    """(row name, params, history)."""
    everything = {
        "temperature": 0.9, "logit_bias": [[3, 1.5], [0, -0.5]], "repetition_penalty": 1.15, "no_repeat_ngram": 2,
        "top_k": 60, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.9, "epsilon_cutoff": 1e-3, "eta_cutoff": 2e-3,
    }
    for name, row in all_rows.items():
        n = row.numel()
        if name.startswith("uniform"):
            # The cumulative probability meets 1 - top_p exactly: only the rounding decides.
            for p in (0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99):
                yield name, {"temperature": 1.0, "top_p": p}, []
            continue
        for i in range(3 if n < 5 else 24):
            word = torch.randint(0, n, (9,), generator=RNG).tolist()
            history = [] if n < 5 else word + [pick(word)] + word[: pick([2, 4])]
            yield name, random_params(n, greedy=i % 6 == 5), history
        if n > 5:
            yield name, everything, [3, 0, 1, 3, 0]


def main():
    model = MistralForCausalLM(MistralConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1))
    all_rows = rows()
    big = load_file(f"{HERE}/sampling_goldens.safetensors")["logits.big32000"]
    tensors = {f"logits.{name}": row for name, row in all_rows.items()}
    records = []
    for name, params, history in cases({**all_rows, "big32000": big}):
        scores = big if name == "big32000" else all_rows[name]
        ids = torch.tensor([history], dtype=torch.long)
        out = processors(model, params)(ids, scores[None].clone())[0]
        kept = torch.nonzero(torch.isfinite(out))[:, 0]
        assert len(kept) > 0 and not out.isnan().any(), (name, params)
        record = {"logits": name, "params": params, "history": history, "kept": len(kept)}
        if params["temperature"] == 0:
            record["argmax"] = int(out.argmax())
        if len(kept) <= STORE_AT_MOST:
            tensors[f"out_ids.{len(records)}"] = kept.to(torch.int32)
            tensors[f"out_values.{len(records)}"] = out[kept].contiguous()
        else:
            record["kept_sum"] = float(out[kept].double().sum())
        records.append(record)
    save_file(tensors, f"{HERE}/extra_goldens.safetensors")
    made_by = f"transformers {transformers.__version__} torch {torch.__version__}"
    # -inf is not JSON: such a bias is written as null.
    for r in records:
        for pair in r["params"].get("logit_bias", []):
            pair[1] = None if pair[1] is None or math.isinf(pair[1]) else pair[1]
    head = json.dumps({"made_by": made_by, "cases": None})[:-len("null}")]
    with open(f"{HERE}/extra_goldens.json", "w") as f:
        f.write(head + "[\n" + ",\n".join(json.dumps(r) for r in records) + "\n]}\n")
    print(len(records), "cases")


main()
