"""What the golden scripts share: run transformers in eager mode on the CPU, keep what komt's tests compare.

Keys of golden.safetensors are `<dtype>.w<window|none>.<prompt>.<tensor>`; testdata/SOURCES.md lists the tensors.
"""

import json
import os
import re

import safetensors.torch
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

# One thread: sums are then taken in one order, so that a second run writes the same bytes.
torch.set_num_threads(1)


def versions():
    return (
        f"transformers {transformers.__version__} torch {torch.__version__.split('+')[0]}, "
        "AutoModelForCausalLM, attn_implementation=eager, CPU, 1 thread"
    )


def load(model_dir, window="config", dtype=torch.float32):
    """The model of `model_dir`, its weights converted to `dtype`; `window` replaces the config's sliding window."""
    config = AutoConfig.from_pretrained(model_dir)
    if window != "config":
        config.sliding_window = window
    model = AutoModelForCausalLM.from_pretrained(
        model_dir, config=config, dtype=dtype, attn_implementation="eager"
    )
    return model.eval()


def case_key(window, prompt, dtype="float32"):
    return f"{dtype}.w{'none' if window is None else window}.{prompt}"


@torch.no_grad()
def forward(model, ids, layers=False, inner=False):
    """Logits [T, V] of one prompt in one pass without a cache, and the captured hidden states by name.

    `final_hidden` is what the last norm returns. `layers` adds `embeddings` and `layer.N.output` (the residual
    stream after layer N), `inner` the four parts of layer 0.
    """
    captured, hooks = {}, []

    def capture(module, name):
        def hook(_module, _args, output):
            output = output[0] if isinstance(output, tuple) else output
            captured[name] = output[0].detach().float().clone()

        hooks.append(module.register_forward_hook(hook))

    capture(model.model.norm, "final_hidden")
    if layers:
        capture(model.model.embed_tokens, "embeddings")
        for i, layer in enumerate(model.model.layers):
            capture(layer, f"layer.{i}.output")
    if inner:
        for name in ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp"):
            capture(getattr(model.model.layers[0], name), f"layer.0.{name}")
    try:
        out = model(torch.tensor([ids]), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return out.logits[0].float(), captured


@torch.no_grad()
def greedy(model, ids, n, cached):
    """`n` greedy ids after `ids`, EOS ignored, and the margin top1 - top2 of each.

    `cached=False` runs the whole text again for each id: slow, and right for every window (transformers' own cache
    is wrong for a window of 1).
    """
    past, step, text = None, torch.tensor([ids]), list(ids)
    margins = []
    for _ in range(n):
        if cached:
            out = model(step, past_key_values=past, use_cache=True)
            past = out.past_key_values
        else:
            out = model(torch.tensor([text]), use_cache=False)
        values, top = out.logits[0, -1].float().topk(2)
        text.append(int(top[0]))
        margins.append(round(float(values[0] - values[1]), 6))
        step = torch.tensor([[text[-1]]])
    return text[len(ids) :], margins


def token_nll(logits, ids):
    """[T-1]: -ln p(ids[i + 1] | ids[..= i])."""
    log_probs = torch.log_softmax(logits.double(), -1)
    return -log_probs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


POOLINGS = ("last", "mean")
MORE_POOLINGS = (*POOLINGS, "weighted_mean", "mean_from5")


def embeddings(final_hidden, poolings=POOLINGS):
    """Pooled vectors, computed in float64, each as it is and divided by its length.

    `weighted_mean`: position i of 1..=n counts i times (SGPT, arXiv:2202.08904, section 3.1). `mean_from5`: the mean
    over positions >= 5, as when a prefix of 5 tokens is an instruction that shall not count; for longer prompts only.
    """
    hidden = final_hidden.double()
    n = len(hidden)
    weights = torch.arange(1, n + 1, dtype=torch.float64)
    pooled = {"last": hidden[-1], "mean": hidden.mean(0)}
    pooled["weighted_mean"] = (weights[:, None] * hidden).sum(0) / weights.sum()
    if n > 5:
        pooled["mean_from5"] = hidden[5:].mean(0)
    pooled = {name: vector for name, vector in pooled.items() if name in poolings}
    out = {}
    for name, vector in pooled.items():
        out[name] = vector.float()
        out[name + "_l2"] = (vector / vector.norm()).float()
    return out


def golden_case(
    model,
    ids,
    key,
    tensors,
    full_logits=True,
    layers=False,
    inner=False,
    n_greedy=64,
    uncached=False,
    poolings=POOLINGS,
):
    """Runs one prompt, puts its tensors under `key.` and returns its record for golden.json.

    Without `full_logits`, for large vocabularies: the 16 best of each position, log(sum(exp)) and the last row.
    """
    logits, captured = forward(model, ids, layers, inner)
    mine = {"input_ids": torch.tensor(ids, dtype=torch.int64)}
    if full_logits:
        mine["logits"] = logits
    else:
        values, top = logits.topk(16, -1)
        mine["topk_values"], mine["topk_ids"] = values, top.to(torch.int32)
        mine["logsumexp"] = torch.logsumexp(logits.double(), -1).float()
        mine["last_logits"] = logits[-1].clone()
    mine.update(captured)
    for name, vector in embeddings(captured["final_hidden"], poolings).items():
        mine["embedding." + name] = vector
    record = {"n_tokens": len(ids), "argmax_last": int(logits[-1].argmax())}
    if len(ids) > 1:
        nll = token_nll(logits, ids)
        mine["token_nll"] = nll.float()
        record["nll_sum"] = float(nll.sum())
        record["nll_mean"] = float(nll.mean())
        record["perplexity"] = float(nll.mean().exp())
    if n_greedy:
        record["greedy"], record["greedy_margin"] = greedy(model, ids, n_greedy, cached=True)
        if uncached:
            cached_ids = record["greedy"]
            record["greedy"], record["greedy_margin"] = greedy(model, ids, n_greedy, cached=False)
            record["transformers_cached_agrees"] = cached_ids == record["greedy"]
    tensors.update({f"{key}.{name}": tensor.contiguous() for name, tensor in mine.items()})
    return record


def write_json(value, path):
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # Lists of numbers on one line.
    text = re.sub(r"\[[-+\d.,eE\s]*\]", lambda numbers: " ".join(numbers[0].split()), text)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def save_weights(state, path):
    safetensors.torch.save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, path, metadata={"format": "pt"}
    )


def save_goldens(model_dir, tensors, meta):
    os.makedirs(model_dir, exist_ok=True)
    path = os.path.join(model_dir, "golden.safetensors")
    safetensors.torch.save_file(tensors, path)
    write_json({"made_by": versions(), **meta}, os.path.join(model_dir, "golden.json"))
    print(f"{model_dir}: {len(meta['cases'])} cases, {os.path.getsize(path)} bytes")


def nmse(got, want):
    """Normalised mean squared error of the worst row: sum((got - want)^2) / sum(want^2)."""
    got, want = got.double(), want.double()
    return float(((got - want).square().sum(-1) / want.square().sum(-1)).max())
