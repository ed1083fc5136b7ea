"""stories260K of llama2.c (stories260K.bin, tok512.bin) as a Hugging Face directory of MistralForCausalLM.

The same graph: 8 heads of 8, 4 kv heads, theta 10000, eps 1e-5, no window.

usage: convert_stories260k.py STORIES260K_BIN TOK512_BIN OUT_DIR
"""

import json
import os
import struct
import sys

import numpy as np
from safetensors.numpy import save_file


class Reader:
    """The float32 values after the header, taken in order. Layout: llama2.c, export.py, legacy_export."""

    def __init__(self, data):
        self.values, self.at = np.frombuffer(data, dtype="<f4"), 0

    def take(self, *shape):
        n = int(np.prod(shape))
        out = self.values[self.at : self.at + n].reshape(shape).copy()
        self.at += n
        return out


def halves(weight, n_heads):
    """Rows of each head from interleaved RoPE pairs (llama2.c) to the two halves Hugging Face pairs up."""
    rows, cols = weight.shape
    return weight.reshape(n_heads, rows // n_heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols).copy()


def read_model(path):
    data = open(path, "rb").read()
    dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab, max_len = struct.unpack("7i", data[:28])
    tied, vocab = vocab > 0, abs(vocab)
    head_dim = dim // n_heads
    kv_dim = head_dim * n_kv_heads
    r = Reader(data[28:])
    embed = r.take(vocab, dim)
    attn_norm = r.take(n_layers, dim)
    wq, wk = r.take(n_layers, dim, dim), r.take(n_layers, kv_dim, dim)
    wv, wo = r.take(n_layers, kv_dim, dim), r.take(n_layers, dim, dim)
    ffn_norm = r.take(n_layers, dim)
    w1, w2, w3 = r.take(n_layers, hidden_dim, dim), r.take(n_layers, dim, hidden_dim), r.take(n_layers, hidden_dim, dim)
    state = {"model.embed_tokens.weight": embed, "model.norm.weight": r.take(dim)}
    r.take(2, max_len, head_dim // 2)  # the file's own cos and sin
    if not tied:
        state["lm_head.weight"] = r.take(vocab, dim)
    assert r.at == r.values.size, (r.at, r.values.size)
    for i in range(n_layers):
        layer = f"model.layers.{i}."
        state[layer + "input_layernorm.weight"] = attn_norm[i]
        state[layer + "post_attention_layernorm.weight"] = ffn_norm[i]
        state[layer + "self_attn.q_proj.weight"] = halves(wq[i], n_heads)
        state[layer + "self_attn.k_proj.weight"] = halves(wk[i], n_kv_heads)
        state[layer + "self_attn.v_proj.weight"] = wv[i]
        state[layer + "self_attn.o_proj.weight"] = wo[i]
        state[layer + "mlp.gate_proj.weight"] = w1[i]
        state[layer + "mlp.down_proj.weight"] = w2[i]
        state[layer + "mlp.up_proj.weight"] = w3[i]
    config = dict(
        architectures=["MistralForCausalLM"],
        model_type="mistral",
        vocab_size=vocab,
        hidden_size=dim,
        intermediate_size=hidden_dim,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv_heads,
        head_dim=head_dim,
        hidden_act="silu",
        max_position_embeddings=max_len,
        initializer_range=0.02,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        sliding_window=None,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=tied,
        attention_dropout=0.0,
        torch_dtype="float32",
        use_cache=True,
    )
    return config, state


def read_pieces(path):
    """[(piece, score)] of tokenizer.bin, in SentencePiece's spelling."""
    data, at, pieces = open(path, "rb").read(), 4, []
    while at < len(data):
        score, length = struct.unpack("fi", data[at : at + 8])
        piece = data[at + 8 : at + 8 + length].decode("utf-8")
        i = len(pieces)
        if i in (1, 2):
            piece = ("<s>", "</s>")[i - 1]
        elif i >= 3 + 256:  # after the special and the byte pieces
            piece = piece.replace(" ", "▁")
        pieces.append((piece, score))
        at += 8 + length
    return pieces


def bpe_merges(pieces, vocab):
    """SentencePiece's scores as an ordered list of merges, as transformers' converter does it."""
    merges = []
    for i, (piece, score) in enumerate(pieces):
        if i < 259 or len(piece) < 2:
            continue
        cuts = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        cuts = [(a, b) for a, b in cuts if a in vocab and b in vocab]
        cuts.sort(key=lambda cut: (vocab[cut[0]], vocab[cut[1]]))
        merges += [(score, cut) for cut in cuts]
    merges.sort(key=lambda merge: -merge[0])  # stable: by score only
    return [f"{a} {b}" for _, (a, b) in merges]


def tokenizer_json(pieces):
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": c, **flags} for i, c in enumerate(("<unk>", "<s>", "</s>"))],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first],
            "pair": [bos, first, {"SpecialToken": {"id": "<s>", "type_id": 1}}, second],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": bpe_merges(pieces, vocab),
        },
    }


def main(model_bin, tokenizer_bin, out_dir):
    config, state = read_model(model_bin)
    pieces = read_pieces(tokenizer_bin)
    assert len({piece for piece, _ in pieces}) == config["vocab_size"]
    os.makedirs(out_dir, exist_ok=True)

    def write(name, value):
        with open(os.path.join(out_dir, name), "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=1)

    save_file(state, os.path.join(out_dir, "model.safetensors"), metadata={"format": "pt"})
    write("config.json", config)
    write("generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    write("tokenizer.json", tokenizer_json(pieces))
    write(
        "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": None,
            "clean_up_tokenization_spaces": False,
            "legacy": True,
            "model_max_length": config["max_position_embeddings"],
            "tokenizer_class": "LlamaTokenizer",
        },
    )


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
