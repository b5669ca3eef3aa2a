#!/usr/bin/env python3
"""Training speed of the same model in PyTorch, to stand beside `routescope-bench --device cuda` on the same card.

    python3 scripts/bench_torch.py --residual standard block_attn_res --json torch.json
    python3 scripts/bench_torch.py --check tests/fixtures/standard tests/fixtures/block_sum     # the model itself, on the CPU

Qwen3-0.6B by default: micro-batches of 16 x 2048 random tokens, gradients accumulated over 16 of them, clipped, AdamW.
Parameters, gradients and moments are f32; each use of a matrix takes its bf16 copy, and activations and the residual stream
are bf16 with f32 arithmetic in norms, softmaxes and routing: what routescope does. As PyTorch does it best without writing
kernels: packed projections, scaled_dot_product_attention by whichever backend is fastest here, fused AdamW, and torch.compile of
the model's parts (addition + read + norm, attention, MLP, head with loss), each compiled once and used by every layer.

Block AttnRes is the block_sum form of the AttnRes report (arXiv 2603.15031), its reads in plain operations for torch.compile to
fuse; `--reads flash_attn_res` takes the Triton operations of the package of that name where it is installed.
"""

import argparse
import contextlib
import gc
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

PRESET = {
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "attnres_num_blocks": 8,
    "attnres_recency_bias_init": 0.0,
}


# ---- the parts that are compiled -------------------------------------------------------------------------------------


def widen(x):
    """At least f32: what norms, softmaxes and routing are computed in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rms_norm(x, gain, eps):
    y = widen(x)
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps) * gain).to(x.dtype)


def add_norm(p, y, gain, eps):
    """Standard residual stream: p + y, and its norm."""
    p = p if y is None else p + y
    return p, rms_norm(p, gain, eps)


def mix(sources, u, bias, eps):
    """A read: alpha [..., n+1] over the sources, the current one last, and h = sum_i alpha_i v_i. u = query * key gain."""
    wide = [widen(v) for v in sources]
    logits = [(v * u).sum(-1) * torch.rsqrt(v.square().mean(-1) + eps) for v in wide]
    if len(logits) > 1:
        logits[-1] = logits[-1] + bias
    alpha = torch.stack(logits, -1).softmax(-1)
    return alpha, sum(alpha[..., i, None] * v for i, v in enumerate(wide))


def add_read_norm(completed, p, y, query, key_gain, bias, gain, eps):
    """Routed residual stream: p + y (an undefined one counts as zero), the read over completed + [p], and its norm."""
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
    """The functions above, compiled or as they are."""

    def __init__(self, compiled):
        for part in PARTS:
            setattr(self, part.__name__, torch.compile(part, dynamic=False) if compiled else part)


class FlashAttnRes:
    """The reads of a group by the package flash_attn_res: phase one over the completed sources, then merges."""

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
            elif self.flash:  # the block's first read: all its sources are complete
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
        """u of every read that sees the sources complete at layer `first`, [reads, hidden size]."""
        vectors = []
        for layer in self.layers[first : first + self.layers_per_block]:
            vectors += [layer.attn_query * layer.attn_key_gain, layer.mlp_query * layer.mlp_key_gain]
        return torch.stack(vectors)

    def loss(self, tokens, targets, dtype):
        return self.parts.head_loss(self.hidden(tokens, dtype), self.embedding, targets)


# ---- measuring -------------------------------------------------------------------------------------------------------


def fastest_attention(c, batch, positions):
    """The backend of scaled_dot_product_attention that does this shape forward and backward soonest, and each one's seconds."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    heads = (c["num_attention_heads"], c["num_key_value_heads"], c["num_key_value_heads"])
    seconds = {}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        try:
            like = {"device": "cuda", "dtype": torch.bfloat16, "requires_grad": True}
            q, k, v = (torch.randn(batch, n, positions, c["head_dim"], **like) for n in heads)
            with sdpa_kernel(backend):
                best = float("inf")
                for _ in range(4):
                    torch.cuda.synchronize()
                    begin = time.perf_counter()
                    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads[0] != heads[1])
                    out.backward(out.detach())
                    torch.cuda.synchronize()
                    best = min(best, time.perf_counter() - begin)
            seconds[backend] = best
        except RuntimeError as error:
            print(f"{backend.name}: not for this shape ({str(error).splitlines()[0]})", file=sys.stderr)
    if not seconds:
        return None, {}
    return min(seconds, key=seconds.get), {backend.name: value for backend, value in seconds.items()}


def measure(args, c, residual):
    device, dtype = args.device, torch.bfloat16 if args.device == "cuda" else torch.float32
    flash = FlashAttnRes() if args.reads == "flash_attn_res" and residual == "block_attn_res" else None
    torch.manual_seed(1)
    with torch.device(device):
        model = Model(c, residual, Parts(args.compile == "parts"), flash)
    decayed = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=device == "cuda",
    )  # fmt: skip
    batch, positions = args.micro_batch, args.sequence_length
    generator = torch.Generator().manual_seed(1)
    draws = torch.randint(c["vocab_size"], (8, batch, positions + 1), generator=generator).to(device)

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    def step(passes):
        total = torch.zeros((), device=device)
        for i in range(passes):
            draw = draws[i % len(draws)]
            loss = model.loss(draw[:, :-1].contiguous(), draw[:, 1:].contiguous(), dtype) / passes
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return total

    begin = time.perf_counter()
    first_loss = step(1).item()
    wait()
    compile_seconds = time.perf_counter() - begin
    step(2)  # allocations settle
    wait()
    seconds, loss = [], None
    for _ in range(args.steps):
        begin = time.perf_counter()
        loss = step(args.accumulate)
        wait()
        seconds.append(time.perf_counter() - begin)
    seconds.sort()
    middle = seconds[len(seconds) // 2]
    result = {
        "residual": residual,
        "reads": args.reads if residual == "block_attn_res" else "none",
        "tokens_per_second": args.accumulate * batch * positions / middle,
        "step_seconds": middle,
        "micro_batch": batch,
        "sequence_length": positions,
        "accumulate": args.accumulate,
        "first_loss": first_loss,
        "last_loss": loss.item(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "compile": args.compile,
        "compile_seconds": compile_seconds,
        "torch": torch.__version__,
        "precision": "bf16 matrices and activations, f32 parameters and moments" if device == "cuda" else "f32",
    }
    if device == "cuda":
        result["device"] = torch.cuda.get_device_name()
        result["peak_bytes"] = torch.cuda.max_memory_allocated()
    return result


def free_memory():
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def measure_fitting(args, c, residual):
    """With half the micro-batch, and twice as many, for as long as it does not fit."""
    while True:
        try:
            return measure(args, c, residual)
        except torch.OutOfMemoryError:
            if args.micro_batch == 1:
                raise
        args.micro_batch //= 2
        args.accumulate *= 2
        free_memory()
        print(f"{residual}: out of memory, micro-batch {args.micro_batch}", file=sys.stderr)


# ---- checking --------------------------------------------------------------------------------------------------------


def load_fixture(folder):
    """The model of a model directory, in f64, and the names under which its parameters' gradients are expected."""
    from safetensors.torch import load_file

    with open(f"{folder}/config.json", encoding="utf-8") as file:
        c = json.load(file)
    c.setdefault("attnres_num_blocks", 1)
    c.setdefault("attnres_recency_bias_init", 0.0)
    if "rope_theta" not in c:
        c["rope_theta"] = c["rope_parameters"]["rope_theta"]
    routed = c["model_type"] == "qwen3_attnres"
    if not c["tie_word_embeddings"] or (routed and c.get("attnres_source") != "block_sum"):
        raise SystemExit(f"bench_torch.py: error: {folder}: expected a tied model, standard or block_sum")
    weights = {name: tensor.double() for name, tensor in load_file(f"{folder}/model.safetensors").items()}
    model = Model(c, "block_attn_res" if routed else "standard", Parts(False)).double()
    names = {model.embedding: ["model.embed_tokens.weight"], model.final_norm: ["model.norm.weight"]}
    if routed:
        names[model.final_query] = ["model.final_res_proj.weight"]
        names[model.final_key_gain] = ["model.final_res_norm.weight"]
    for number, layer in enumerate(model.layers):
        prefix = f"model.layers.{number}."
        names |= {
            layer.qkv: [f"{prefix}self_attn.{p}_proj.weight" for p in "qkv"],
            layer.o: [prefix + "self_attn.o_proj.weight"],
            layer.gate_up: [f"{prefix}mlp.{p}_proj.weight" for p in ("gate", "up")],
            layer.down: [prefix + "mlp.down_proj.weight"],
            layer.attn_norm: [prefix + "input_layernorm.weight"],
            layer.mlp_norm: [prefix + "post_attention_layernorm.weight"],
            layer.q_norm: [prefix + "self_attn.q_norm.weight"],
            layer.k_norm: [prefix + "self_attn.k_norm.weight"],
        }
        for kind in ("attn", "mlp") if routed else ():
            names[getattr(layer, kind + "_query")] = [f"{prefix}{kind}_res_proj.weight"]
            names[getattr(layer, kind + "_key_gain")] = [f"{prefix}{kind}_res_norm.weight"]
    with torch.no_grad():
        for parameter, parts in names.items():
            parameter.copy_(torch.cat([weights.pop(name) for name in parts]).view_as(parameter))
    if weights:
        raise SystemExit(f"bench_torch.py: error: {folder}: found {sorted(weights)}, expected no such parameters")
    return model, names


def check(folder):
    """Logits, alpha and gradients against the fixture's; the largest difference, relative to each one's largest entry."""
    import h5py

    model, names = load_fixture(folder)
    with h5py.File(f"{folder}/expected.h5") as file:
        expected = {"logits": file["logits"][:], "tokens": file["tokens"][:]}
        gradients = {name: file["grad"][name][:] for parts in names.values() for name in parts}
        alphas = file["alpha"][:] if model.routed else None
    tokens = torch.tensor(expected["tokens"], dtype=torch.long)
    model.alphas = []
    x = model.hidden(tokens, torch.float64)
    logits = head_logits(x, model.embedding)
    head_loss(x[:, :-1], model.embedding, tokens[:, 1:]).backward()

    worst = {}

    def compare(kind, found, wanted):
        found, wanted = found.detach().double().flatten(), torch.as_tensor(wanted).double().flatten()
        scale = wanted.abs().max().clamp_min(1e-3)
        worst[kind] = max(worst.get(kind, 0.0), ((found - wanted).abs().max() / scale).item())

    compare("logits", logits, expected["logits"])
    for parameter, parts in names.items():
        compare("gradients", parameter.grad, torch.cat([torch.as_tensor(gradients[name]).flatten() for name in parts]))
    for number, alpha in enumerate(model.alphas):
        row = torch.as_tensor(alphas[number])
        compare("alpha", alpha, row[~row.isnan()].view(alpha.shape))
        compare("sum of alpha", alpha.sum(-1), torch.ones(alpha.shape[:-1]))
    print(f"{folder}: " + ", ".join(f"{kind} within {value:.1e}" for kind, value in worst.items()))
    # transformers computed the standard models in f32, and all gradients are stored in f32.
    return max(worst.values()) < 2e-5 and len(model.alphas) == (len(alphas) if model.routed else 0)


# ---- command line ----------------------------------------------------------------------------------------------------


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    residuals = ["standard", "block_attn_res"]
    parser.add_argument("--residual", nargs="+", default=residuals, choices=residuals)
    parser.add_argument("--reads", default="torch", choices=["torch", "flash_attn_res"])
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--sequence-length", type=int, default=2048)
    parser.add_argument("--accumulate", type=int, default=16, help="micro-batches in a step")
    parser.add_argument("--steps", type=int, default=3, help="timed steps; the median counts")
    parser.add_argument("--compile", default="parts", choices=["parts", "none"])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    for key, value in PRESET.items():
        parser.add_argument("--" + key.replace("_", "-"), type=type(value), default=value)
    parser.add_argument("--json", help="a file for the results; they are printed too")
    parser.add_argument("--check", nargs="+", metavar="DIR", help="compare with fixtures (needs safetensors, h5py)")
    return parser.parse_args()


def main():
    args = parse_arguments()
    if args.check:
        return 0 if all([check(folder) for folder in args.check]) else 1
    if args.device == "cuda" and not torch.cuda.is_available():
        print("bench_torch.py: no CUDA device", file=sys.stderr)
        return 3
    c = {key: getattr(args, key) for key in PRESET}
    context, attention_seconds = contextlib.nullcontext(), {}
    if args.device == "cuda":
        from torch.nn.attention import sdpa_kernel

        torch.set_float32_matmul_precision("high")
        torch._dynamo.config.recompile_limit = 64  # a read is compiled for each number of sources
        backend, attention_seconds = fastest_attention(c, args.micro_batch, args.sequence_length)
        if backend is not None:
            context = sdpa_kernel(backend)
            print(f"attention by {backend.name}", file=sys.stderr)
    results, failed = [], False
    micro_batch, accumulate = args.micro_batch, args.accumulate
    with context:
        for residual in args.residual:
            args.micro_batch, args.accumulate = micro_batch, accumulate
            try:
                result = measure_fitting(args, c, residual)
                result["attention_seconds"] = attention_seconds
            except Exception as error:  # the other model is measured all the same
                result = {"residual": residual, "reads": args.reads, "error": f"{type(error).__name__}: {error}"}
                failed = True
            results.append(result)
            print(json.dumps(result), flush=True)
            if args.device == "cuda":
                free_memory()
            if args.json:
                with open(args.json, "w", encoding="utf-8") as file:
                    json.dump(results, file, indent=1)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
