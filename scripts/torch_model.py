"""Qwen3 in PyTorch with the standard or the Block AttnRes residual stream, for bench_torch.py.

Matrices, gains and the optimizer's state are f32. Each use of a matrix takes its bf16 copy; activations and the residual
stream are bf16, with f32 arithmetic in norms, softmaxes and routing, as in routescope. Block AttnRes is the block_sum form
of the AttnRes report (arXiv 2603.15031). Its reads are plain operations that torch.compile fuses, or the Triton operations
of the package flash_attn_res.
"""

import torch
import torch.nn.functional as F
from torch import nn

# ---- the parts that are compiled -------------------------------------------------------------------------------------


def widen(x):
    """At least f32, in which norms, softmaxes and routing are computed."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rms_norm(x, gain, eps):
    y = widen(x)
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps) * gain).to(x.dtype)


def add_norm(p, y, gain, eps):
    """Standard residual stream: returns p + y and its norm."""
    p = p if y is None else p + y
    return p, rms_norm(p, gain, eps)


def mix(sources, u, bias, eps):
    """A read: returns alpha [..., n+1] over the sources, of which the last is the current one, and h = sum_i alpha_i v_i.

    u = query * key gain.
    """
    wide = [widen(v) for v in sources]
    logits = [(v * u).sum(-1) * torch.rsqrt(v.square().mean(-1) + eps) for v in wide]
    if len(logits) > 1:
        logits[-1] = logits[-1] + bias
    alpha = torch.stack(logits, -1).softmax(-1)
    return alpha, sum(alpha[..., i, None] * v for i, v in enumerate(wide))


def add_read_norm(completed, p, y, query, key_gain, bias, gain, eps):
    """Routed residual stream: returns p + y (None counts as zero), the norm of the read over completed + [p], and alpha."""
    p = y if p is None else p if y is None else p + y
    alpha, h = mix([*completed, p], query * key_gain, bias, eps)
    return p, rms_norm(h.to(p.dtype), gain, eps), alpha


def rotate(x, cos, sin):
    first, second = widen(x).chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x.dtype)


def attention(x, w_qkv, w_o, q_gain, k_gain, cos, sin, heads, kv_heads, eps):
    batch, positions, _ = x.shape
    head_dim = q_gain.numel()
    qkv = F.linear(x, w_qkv.to(x.dtype)).view(batch, positions, heads + 2 * kv_heads, head_dim).transpose(1, 2)
    q, k, v = qkv.split((heads, kv_heads, kv_heads), 1)
    q = rotate(rms_norm(q, q_gain, eps), cos, sin)
    k = rotate(rms_norm(k, k_gain, eps), cos, sin)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)
    return F.linear(out.transpose(1, 2).reshape(batch, positions, heads * head_dim), w_o.to(x.dtype))


def mlp(x, w_gate_up, w_down):
    gate, up = F.linear(x, w_gate_up.to(x.dtype)).chunk(2, -1)
    return F.linear(F.silu(gate) * up, w_down.to(x.dtype))


def head_logits(x, w):
    return widen(F.linear(x, w.to(x.dtype)))


def head_loss(x, w, targets):
    return F.cross_entropy(head_logits(x, w).flatten(0, 1), targets.flatten())


PARTS = (add_norm, add_read_norm, attention, mlp, head_loss)


class Parts:
    """The functions above, compiled or not."""

    def __init__(self, compiled):
        for part in PARTS:
            setattr(self, part.__name__, torch.compile(part, dynamic=False) if compiled else part)


class FlashAttnRes:
    """The reads of a group by the package flash_attn_res: phase one over the completed sources, then a merge for each read."""

    def __init__(self):
        import flash_attn_res

        self.phase_one = flash_attn_res.phase_1_batched_attention_triton_op
        self.phase_two = flash_attn_res.phase_2_online_softmax_merge_triton_op

    def prepare(self, completed, u, eps):
        return self.phase_one(torch.stack(completed), u, eps)

    def merge(self, p, u, prepared, i, eps):
        outputs, lses = prepared
        return outputs[i] if p is None else self.phase_two(p, u, outputs[i], lses[i], eps)


# ---- the model -------------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    def __init__(self, c, routed):
        super().__init__()
        d, f, head_dim = c["hidden_size"], c["intermediate_size"], c["head_dim"]
        heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        self.qkv = nn.Parameter(torch.empty((heads + 2 * kv_heads) * head_dim, d))
        self.o = nn.Parameter(torch.empty(d, heads * head_dim))
        self.gate_up = nn.Parameter(torch.empty(2 * f, d))
        self.down = nn.Parameter(torch.empty(d, f))
        self.attn_norm, self.mlp_norm = gain(d), gain(d)
        self.q_norm, self.k_norm = gain(head_dim), gain(head_dim)
        if routed:
            self.attn_query, self.mlp_query = (nn.Parameter(torch.zeros(d)) for _ in range(2))
            self.attn_key_gain, self.mlp_key_gain = gain(d), gain(d)


def gain(size):
    return nn.Parameter(torch.ones(size))


class Model(nn.Module):
    """Qwen3, its residual stream standard or routed by block_sum reads; tied embedding."""

    def __init__(self, c, residual, parts, flash=None):
        super().__init__()
        self.c, self.routed, self.parts, self.flash = c, residual == "block_attn_res", parts, flash
        self.layers_per_block = -(-c["num_hidden_layers"] // c["attnres_num_blocks"])
        self.embedding = nn.Parameter(torch.empty(c["vocab_size"], c["hidden_size"]))
        self.layers = nn.ModuleList(Layer(c, self.routed) for _ in range(c["num_hidden_layers"]))
        self.final_norm = gain(c["hidden_size"])
        if self.routed:
            self.final_query = nn.Parameter(torch.zeros(c["hidden_size"]))
            self.final_key_gain = gain(c["hidden_size"])
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
        self.angles = None
        self.alphas = None  # a list: forward() appends every read's alpha to it

    def rotary(self, positions, device, dtype):
        if self.angles is None or self.angles[0].shape[0] != positions:
            half = torch.arange(0, self.c["head_dim"], 2, dtype=torch.float64) / self.c["head_dim"]
            angle = torch.arange(positions, dtype=torch.float64)[:, None] * self.c["rope_theta"] ** -half
            wide = torch.promote_types(dtype, torch.float32)
            self.angles = (angle.cos().to(device, wide), angle.sin().to(device, wide))
        return self.angles

    def hidden(self, tokens, dtype):
        """The input of the head, [batch, positions, hidden size]."""
        c, parts = self.c, self.parts
        eps = c["rms_norm_eps"]
        cos, sin = self.rotary(tokens.shape[1], tokens.device, dtype)
        p, y = F.embedding(tokens, self.embedding).to(dtype), None
        completed, prepared, in_group = [], None, 0
        bias = c["attnres_recency_bias_init"]

        def read(p, y, query, key_gain, norm_gain):
            nonlocal in_group
            if prepared is None:
                p, x, alpha = parts.add_read_norm(completed, p, y, query, key_gain, bias, norm_gain, eps)
                if self.alphas is not None:
                    self.alphas.append(alpha)
                return p, x
            p = y if p is None else p + y
            in_group += 1
            h = self.flash.merge(p, query * key_gain, prepared, in_group - 1, eps)
            return p, parts.add_norm(h, None, norm_gain, eps)[1]

        for number, layer in enumerate(self.layers):
            if not self.routed:
                p, x = parts.add_norm(p, y, layer.attn_norm, eps)
            elif number % self.layers_per_block != 0:
                p, x = read(p, y, layer.attn_query, layer.attn_key_gain, layer.attn_norm)
            elif self.flash:  # the first read of a block: all its sources are complete
                completed.append(p if y is None else p + y)
                prepared, in_group = self.flash.prepare(completed, self.group_vectors(number), eps), 1
                x = parts.add_norm(self.flash.merge(None, None, prepared, 0, eps), None, layer.attn_norm, eps)[1]
                p = None
            else:
                p, x = read(p, y, layer.attn_query, layer.attn_key_gain, layer.attn_norm)
                completed.append(p)
                p = None
            heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
            y = parts.attention(x, layer.qkv, layer.o, layer.q_norm, layer.k_norm, cos, sin, heads, kv_heads, eps)
            if self.routed:
                p, x = read(p, y, layer.mlp_query, layer.mlp_key_gain, layer.mlp_norm)
            else:
                p, x = parts.add_norm(p, y, layer.mlp_norm, eps)
            y = parts.mlp(x, layer.gate_up, layer.down)
        if not self.routed:
            return parts.add_norm(p, y, self.final_norm, eps)[1]
        if self.flash:
            completed.append(p + y)
            u = (self.final_query * self.final_key_gain)[None]
            return parts.add_norm(self.flash.prepare(completed, u, eps)[0][0], None, self.final_norm, eps)[1]
        return read(p, y, self.final_query, self.final_key_gain, self.final_norm)[1]

    def group_vectors(self, first):
        """u of every read over the sources that are complete at layer `first`, [reads, hidden size]."""
        vectors = []
        for layer in self.layers[first : first + self.layers_per_block]:
            vectors += [layer.attn_query * layer.attn_key_gain, layer.mlp_query * layer.mlp_key_gain]
        return torch.stack(vectors)

    def loss(self, tokens, targets, dtype):
        return self.parts.head_loss(self.hidden(tokens, dtype), self.embedding, targets)
