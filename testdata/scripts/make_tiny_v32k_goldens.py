"""A tiny random Mistral with the 32,000 ids of the real Mistral v1 tokenizer, and goldens of three texts.

usage: make_tiny_v32k_goldens.py TOKENIZER_JSON OUT_DIR        writes OUT_DIR/tiny_v32k
"""

import os
import sys

import torch
from tokenizers import Tokenizer

from golden_lib import case_key, golden_case, load, save_goldens, save_weights, write_json

SEED, DIM, HIDDEN_DIM, N_LAYERS, N_HEADS, N_KV_HEADS, HEAD_DIM, WINDOW = 31, 16, 48, 2, 4, 2, 8, 12
VOCAB = 32000
PROMPTS = ["[INST]안녕하세요 [/INST]", "제주도를 1박2일로 혼자 여행하려고 하는데", "Hello, world! 😀"]


def weights():
    generator = torch.Generator().manual_seed(SEED)

    def random(*shape, std=None):
        return torch.randn(*shape, generator=generator) * (shape[-1] ** -0.5 * 1.3 if std is None else std)

    q_dim, kv_dim = N_HEADS * HEAD_DIM, N_KV_HEADS * HEAD_DIM
    state = {"model.embed_tokens.weight": random(VOCAB, DIM, std=0.7)}
    for i in range(N_LAYERS):
        layer = f"model.layers.{i}."
        # The order of these lines is the order of the draws: part of the definition.
        state[layer + "input_layernorm.weight"] = 1 + random(DIM, std=0.2)
        state[layer + "self_attn.q_proj.weight"] = random(q_dim, DIM) * 1.5
        state[layer + "self_attn.k_proj.weight"] = random(kv_dim, DIM) * 1.5
        state[layer + "self_attn.v_proj.weight"] = random(kv_dim, DIM)
        state[layer + "self_attn.o_proj.weight"] = random(DIM, q_dim)
        state[layer + "post_attention_layernorm.weight"] = 1 + random(DIM, std=0.2)
        state[layer + "mlp.gate_proj.weight"] = random(HIDDEN_DIM, DIM)
        state[layer + "mlp.up_proj.weight"] = random(HIDDEN_DIM, DIM)
        state[layer + "mlp.down_proj.weight"] = random(DIM, HIDDEN_DIM)
    state["model.norm.weight"] = 1 + random(DIM, std=0.2)
    state["lm_head.weight"] = random(VOCAB, DIM) * 2
    return {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}


def main(tokenizer_json, out_dir):
    model_dir = os.path.join(out_dir, "tiny_v32k")
    os.makedirs(model_dir, exist_ok=True)
    config = dict(
        architectures=["MistralForCausalLM"],
        model_type="mistral",
        vocab_size=VOCAB,
        hidden_size=DIM,
        intermediate_size=HIDDEN_DIM,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_KV_HEADS,
        head_dim=HEAD_DIM,
        hidden_act="silu",
        max_position_embeddings=1024,
        initializer_range=0.02,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        sliding_window=WINDOW,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        attention_dropout=0.0,
        torch_dtype="bfloat16",
        use_cache=True,
        transformers_version="4.35.2",
    )
    write_json(config, os.path.join(model_dir, "config.json"))
    save_weights(weights(), os.path.join(model_dir, "model.safetensors"))

    tokenizer, model = Tokenizer.from_file(tokenizer_json), load(model_dir)
    tensors, cases = {}, {}
    for p, text in enumerate(PROMPTS):
        key = case_key(WINDOW, f"p{p}")
        record = golden_case(
            model, tokenizer.encode(text).ids, key, tensors, full_logits=False, n_greedy=48, uncached=True
        )
        record["greedy_text"] = tokenizer.decode(record["greedy"])
        cases[key] = {"prompt": p, "sliding_window": WINDOW, "dtype": "float32", **record}
    save_goldens(model_dir, tensors, {"prompts": PROMPTS, "cases": cases})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
