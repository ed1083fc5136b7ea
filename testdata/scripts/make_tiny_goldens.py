"""Tiny random MistralForCausalLM models as Hugging Face directories, with goldens.

usage: make_tiny_goldens.py OUT_DIR        writes OUT_DIR/tiny_{base,head128,nowindow,sharded}
"""

import os
import sys

import torch

from golden_lib import case_key, golden_case, load, save_goldens, save_weights, write_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FIELDS = "seed dim hidden_dim n_layers n_heads n_kv_heads head_dim vocab window tied dtype shards max_pos".split()
MODELS = {
    "base": (11, 64, 160, 2, 4, 2, 16, 512, 8, False, "float32", 1, 512),
    "head128": (12, 64, 96, 2, 4, 2, 128, 512, 8, False, "bfloat16", 1, 512),
    "nowindow": (13, 48, 80, 3, 6, 2, 8, 320, None, True, "float32", 1, 256),
    "sharded": (14, 64, 128, 4, 8, 2, 8, 384, 4, False, "bfloat16", 3, 512),
}
PROMPT_LENGTHS = (1, 7, 40)


def config(s):
    """config.json as transformers 4.35 wrote it: head_dim only where it is not dim / n_heads."""
    out = dict(
        architectures=["MistralForCausalLM"],
        model_type="mistral",
        vocab_size=s["vocab"],
        hidden_size=s["dim"],
        intermediate_size=s["hidden_dim"],
        num_hidden_layers=s["n_layers"],
        num_attention_heads=s["n_heads"],
        num_key_value_heads=s["n_kv_heads"],
        hidden_act="silu",
        max_position_embeddings=s["max_pos"],
        initializer_range=0.02,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        sliding_window=s["window"],
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=s["tied"],
        attention_dropout=0.0,
        torch_dtype=s["dtype"],
        use_cache=True,
        transformers_version="4.35.2",
    )
    if s["head_dim"] != s["dim"] // s["n_heads"]:
        out["head_dim"] = s["head_dim"]
    return out


def weights(s, qk_scale=1.6):
    """Larger than a usual initialisation: attention is then far from uniform and the logits are well spread."""
    generator = torch.Generator().manual_seed(s["seed"])

    def random(*shape, std=None):
        return torch.randn(*shape, generator=generator) * (shape[-1] ** -0.5 * 1.2 if std is None else std)

    dim, hidden_dim = s["dim"], s["hidden_dim"]
    q_dim, kv_dim = s["n_heads"] * s["head_dim"], s["n_kv_heads"] * s["head_dim"]
    state = {"model.embed_tokens.weight": random(s["vocab"], dim, std=0.7)}
    for i in range(s["n_layers"]):
        layer = f"model.layers.{i}."
        # The order of these lines is the order of the draws: part of the definition.
        state[layer + "input_layernorm.weight"] = 1 + random(dim, std=0.2)
        state[layer + "self_attn.q_proj.weight"] = random(q_dim, dim) * qk_scale
        state[layer + "self_attn.k_proj.weight"] = random(kv_dim, dim) * qk_scale
        state[layer + "self_attn.v_proj.weight"] = random(kv_dim, dim)
        state[layer + "self_attn.o_proj.weight"] = random(dim, q_dim)
        state[layer + "post_attention_layernorm.weight"] = 1 + random(dim, std=0.2)
        state[layer + "mlp.gate_proj.weight"] = random(hidden_dim, dim)
        state[layer + "mlp.up_proj.weight"] = random(hidden_dim, dim)
        state[layer + "mlp.down_proj.weight"] = random(dim, hidden_dim)
    state["model.norm.weight"] = 1 + random(dim, std=0.2)
    if not s["tied"]:
        state["lm_head.weight"] = random(s["vocab"], dim) * 2.0
    return {name: tensor.to(DTYPES[s["dtype"]]) for name, tensor in state.items()}


def save_sharded(state, shards, model_dir):
    if shards == 1:
        save_weights(state, os.path.join(model_dir, "model.safetensors"))
        return
    names, weight_map = list(state), {}
    for shard in range(shards):
        part = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        save_weights({name: state[name] for name in part}, os.path.join(model_dir, file))
        weight_map.update({name: file for name in part})
    total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(index, os.path.join(model_dir, "model.safetensors.index.json"))


def main(out_dir):
    for name, values in MODELS.items():
        s = dict(zip(FIELDS, values))
        model_dir = os.path.join(out_dir, "tiny_" + name)
        os.makedirs(model_dir, exist_ok=True)
        write_json(config(s), os.path.join(model_dir, "config.json"))
        write_json({"bos_token_id": 1, "eos_token_id": 2}, os.path.join(model_dir, "generation_config.json"))
        save_sharded(weights(s), s["shards"], model_dir)

        generator = torch.Generator().manual_seed(s["seed"] * 7 + 1)
        prompts = [
            [1] + torch.randint(3, s["vocab"], (length - 1,), generator=generator).tolist()
            for length in PROMPT_LENGTHS
        ]
        window, cases, tensors = s["window"], {}, {}
        other = 3 if window is None else None  # one prompt with the window changed: it must matter
        runs = [("float32", window), ("float32", other), ("bfloat16", window)]
        for dtype, run_window in runs:
            model = load(model_dir, run_window, DTYPES[dtype])
            exact = dtype == "float32"
            for p, ids in enumerate(prompts):
                if run_window != window and p < len(prompts) - 1:
                    continue
                key = case_key(run_window, f"p{p}", dtype)
                layers = exact and p == 1
                record = golden_case(
                    model,
                    ids,
                    key,
                    tensors,
                    layers=layers,
                    inner=layers and run_window == window,
                    n_greedy=64 if exact else 0,
                    uncached=exact,
                )
                cases[key] = {"dtype": dtype, "sliding_window": run_window, "prompt": p, **record}
        last = f"p{len(prompts) - 1}"
        mine = tensors[case_key(window, last) + ".logits"]
        changed = tensors[case_key(other, last) + ".logits"]
        meta = {
            "model": name,
            "seed": s["seed"],
            "cases": cases,
            "max_logit_change_when_window_is_changed": float((mine - changed).abs().max()),
            "logits_abs_max": float(mine.abs().max()),
        }
        save_goldens(model_dir, tensors, meta)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
