"""The demo model in plain PyTorch: the Mistral architecture, written for fast training on a CPU.

`transformers` computes the same function (evaluate.py checks that); this version only avoids its per-step overhead and
takes a ready attention mask, so that several short texts can share one row without seeing each other."""
import torch
import torch.nn.functional as F
from torch import nn

# One place for the numbers: config.json is written from this dictionary.
CONFIG = {
    "architectures": ["MistralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "max_position_embeddings": 1024,
    "model_type": "mistral",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 96,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 3072,
}


class Norm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, CONFIG["rms_norm_eps"])


class Layer(nn.Module):
    """Names follow the Hugging Face checkpoint, so that exporting is only a prefix away."""

    def __init__(self, c):
        super().__init__()
        d, h, kv, hd, ff = (c[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim",
                                           "intermediate_size"))
        self.h, self.kv, self.hd = h, kv, hd
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.input_layernorm, self.post_attention_layernorm = Norm(d), Norm(d)
        self.self_attn = nn.ModuleDict({"q_proj": lin(d, h * hd), "k_proj": lin(d, kv * hd), "v_proj": lin(d, kv * hd),
                                        "o_proj": lin(h * hd, d)})
        self.mlp = nn.ModuleDict({"gate_proj": lin(d, ff), "up_proj": lin(d, ff), "down_proj": lin(ff, d)})

    def forward(self, x, cos, sin, mask):
        B, T, _ = x.shape
        a, n = self.self_attn, self.input_layernorm(x)
        q = a["q_proj"](n).view(B, T, self.h, self.hd).transpose(1, 2)
        k = a["k_proj"](n).view(B, T, self.kv, self.hd).transpose(1, 2)
        v = a["v_proj"](n).view(B, T, self.kv, self.hd).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        rep = self.h // self.kv
        k, v = (window_pairs(t.to(v.dtype)).repeat_interleave(rep, 1) for t in (k, v))
        o = F.scaled_dot_product_attention(window_blocks(q.to(v.dtype)), k, v, attn_mask=mask.to(v.dtype))
        o = o.view(B, -1, self.h, o.shape[2], self.hd).transpose(2, 3)
        x = x + a["o_proj"](o.reshape(B, T, -1))
        m, n = self.mlp, self.post_attention_layernorm(x)
        return x + m["down_proj"](F.silu(m["gate_proj"](n)) * m["up_proj"](n))


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


def window_blocks(x):
    """[B, heads, T, d] -> [B * T/W, heads, W, d]: the queries of one window's length at a time."""
    B, h, T, d = x.shape
    W = CONFIG["sliding_window"]
    return x.view(B, h, T // W, W, d).transpose(1, 2).reshape(-1, h, W, d)


def window_pairs(x):
    """The keys those queries can see: their own block and the one before. Attention costs T * 2W instead of T * T."""
    W = CONFIG["sliding_window"]
    before = F.pad(x, (0, 0, W, 0))[:, :, : x.shape[2]]
    return torch.cat((window_blocks(before), window_blocks(x)), 2)


class Model(nn.Module):
    def __init__(self, c=CONFIG):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = Norm(c["hidden_size"])
        inv = c["rope_theta"] ** (-torch.arange(0, c["head_dim"], 2).float() / c["head_dim"])
        ang = torch.outer(torch.arange(c["max_position_embeddings"]).float(), inv)
        self.register_buffer("cos", torch.cat((ang, ang), -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat((ang, ang), -1).sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:  # the two matrices that write to the residual stream start smaller
                scale = (2 * c["num_hidden_layers"]) ** -0.5 if "o_proj" in name or "down_proj" in name else 1.0
                nn.init.normal_(p, std=(0.03 if "embed" in name else c["hidden_size"] ** -0.5) * scale)

    def hidden(self, ids, mask):
        x, T = self.embed_tokens(ids), ids.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:T], self.sin[:T], mask)
        return self.norm(x)

    def loss(self, ids, targets, weights, mask):
        """Weighted cross-entropy; positions of weight 0 do not reach the output matrix at all."""
        h = self.hidden(ids, mask).flatten(0, 1)
        keep = weights.flatten().nonzero().squeeze(1)
        logits = F.linear(h[keep], self.embed_tokens.weight).float()
        w = weights.flatten()[keep]
        return (F.cross_entropy(logits, targets.flatten()[keep], reduction="none") * w).sum() / w.sum()


def block_mask(doc):
    """Additive mask [B * T/W, 1, W, 2W] for these blocks: i sees j of the same text with i - W < j <= i.
    doc[b, t] numbers the text of a position; it is -1 in the unused end of a row. T is a multiple of W."""
    B, T = doc.shape
    W = CONFIG["sliding_window"]
    before = F.pad(doc, (W, 0), value=-2)[:, :T].reshape(B, -1, W)
    doc = doc.reshape(B, -1, W)
    keys = torch.cat((before, doc), 2)
    distance = torch.arange(W)[:, None] + W - torch.arange(2 * W)[None]
    ok = (doc[..., None] == keys[:, :, None]) & (distance >= 0) & (distance < W)
    return torch.zeros(ok.shape).masked_fill_(~ok, float("-inf")).view(-1, 1, W, 2 * W)


def hf_tensors(model):
    """The state under its Hugging Face names, in bfloat16. lm_head is tied and therefore absent."""
    return {"model." + k: v.detach().to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
