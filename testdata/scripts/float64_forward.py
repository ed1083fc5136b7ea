"""The forward pass of Mistral and Llama once more, in float64 and without transformers' modelling code.

It tells how far a float32 golden is from the exact result. The rotation angles stay float32, as transformers computes
them (`angles="float32"`): they are part of what the model is; at position 8,000 an angle has an error of up to 2e-4,
and `angles="float64"` shows what that is worth.

usage: float64_forward.py MODEL_DIR [GOLDEN_DIR]     compares with the goldens of GOLDEN_DIR (or of MODEL_DIR)
"""

import glob
import json
import os
import sys

import torch
from safetensors.torch import load_file

from golden_lib import nmse

QUERIES_AT_ONCE = 512  # rows of the attention matrix held at once


def load_float64(model_dir):
    with open(os.path.join(model_dir, "config.json")) as file:
        config = json.load(file)
    state = {}
    for path in glob.glob(os.path.join(model_dir, "model*.safetensors")):
        state.update({name: tensor.double() for name, tensor in load_file(path).items()})
    return config, state


def rope_theta(config):
    return config["rope_theta"] if "rope_theta" in config else config["rope_parameters"]["rope_theta"]


def cos_sin(theta, head_dim, n, angles):
    """[n, head_dim] each, both halves alike."""
    dtype = {"float32": torch.float32, "float64": torch.float64}[angles]
    inv_freq = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=dtype) / head_dim)
    angle = torch.arange(n, dtype=dtype)[:, None] * inv_freq[None]
    angle = torch.cat((angle, angle), -1)
    return angle.cos().double(), angle.sin().double()


def rms_norm(x, weight, eps):
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def attention(q, k, v, window):
    """q, k, v [heads, T, head_dim]; position i attends to j iff i - window < j <= i."""
    n, head_dim = q.shape[1:]
    out = torch.empty_like(q)
    j = torch.arange(n)[None]
    for start in range(0, n, QUERIES_AT_ONCE):
        i = torch.arange(start, min(start + QUERIES_AT_ONCE, n))[:, None]
        seen = j <= i
        if window is not None:
            seen &= j > i - window
        scores = q[:, i[:, 0]] @ k.transpose(1, 2) / head_dim**0.5
        out[:, i[:, 0]] = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v
    return out


@torch.no_grad()
def forward(config, state, ids, window, angles="float32"):
    """Logits [T, V] and final_hidden [T, dim], float64."""
    dim, n_heads, n_kv_heads = (config[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    head_dim, eps, n = config.get("head_dim") or dim // n_heads, config["rms_norm_eps"], len(ids)
    cos, sin = cos_sin(rope_theta(config), head_dim, n, angles)

    def heads(x, count):
        return x.view(n, count, head_dim).transpose(0, 1)

    x = state["model.embed_tokens.weight"][torch.as_tensor(ids)]
    for i in range(config["num_hidden_layers"]):
        w = {k.split(f"model.layers.{i}.")[1]: t for k, t in state.items() if k.startswith(f"model.layers.{i}.")}
        h = rms_norm(x, w["input_layernorm.weight"], eps)
        q = rotate(heads(h @ w["self_attn.q_proj.weight"].T, n_heads), cos, sin)
        k = rotate(heads(h @ w["self_attn.k_proj.weight"].T, n_kv_heads), cos, sin)
        v = heads(h @ w["self_attn.v_proj.weight"].T, n_kv_heads)
        k, v = (t.repeat_interleave(n_heads // n_kv_heads, 0) for t in (k, v))
        att = attention(q, k, v, window).transpose(0, 1).reshape(n, n_heads * head_dim)
        x = x + att @ w["self_attn.o_proj.weight"].T
        h = rms_norm(x, w["post_attention_layernorm.weight"], eps)
        gate = torch.nn.functional.silu(h @ w["mlp.gate_proj.weight"].T)
        x = x + (gate * (h @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T
    x = rms_norm(x, state["model.norm.weight"], eps)
    return x @ state.get("lm_head.weight", state["model.embed_tokens.weight"]).T, x


def loose_rows(golden, exact, bound=1e-10):
    """{row: its NMSE} of the rows that float32 got no better than `bound`: no test can ask for much less there."""
    rows = (golden.double() - exact).square().sum(-1) / exact.square().sum(-1)
    return {int(row): float(f"{rows[row]:.1e}") for row in (rows > bound).nonzero()[:, 0]}


def main(model_dir, golden_dir=None):
    golden_dir = golden_dir or model_dir
    config, state = load_float64(model_dir)
    golden = load_file(os.path.join(golden_dir, "golden.safetensors"))
    with open(os.path.join(golden_dir, "golden.json")) as file:
        cases = json.load(file)["cases"]
    for key, case in cases.items():
        logits, hidden = forward(config, state, golden[key + ".input_ids"], case["sliding_window"])
        rows = golden.get(key + ".positions", slice(None))
        pairs = {
            "logits": logits,
            "last_logits": logits[-1:],
            "final_hidden": hidden,
            "logits_at": logits[rows],
            "final_hidden_at": hidden[rows],
        }
        figures = [
            f"{name} {nmse(golden[f'{key}.{name}'].reshape(want.shape), want):.1e}"
            for name, want in pairs.items()
            if f"{key}.{name}" in golden
        ]
        print(f"{os.path.basename(golden_dir)} {key}: NMSE of the worst row: {', '.join(figures)}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
