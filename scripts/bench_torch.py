#!/usr/bin/env python3
"""Training speed of the same model in PyTorch, to compare with `routescope-bench --device cuda` on the same card.

    python3 scripts/bench_torch.py --residual standard block_attn_res --json torch.json
    python3 scripts/bench_torch.py --check tests/fixtures/standard tests/fixtures/block_sum     # checks the model, on the CPU

The default is Qwen3-0.6B: micro-batches of 16 x 2048 random tokens, gradients accumulated over 16 of them, clipped, AdamW.
The model (torch_model.py) is as fast as PyTorch makes it without own kernels: packed projections, the fastest backend of
scaled_dot_product_attention on this card, fused AdamW, and torch.compile of the model's parts (addition + read + norm,
attention, MLP, head with loss), each compiled once and used by every layer. `--reads flash_attn_res` takes the reads of the
package of that name if it is installed.
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
from torch_model import FlashAttnRes, Model, Parts, head_logits, head_loss

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


# ---- measuring -------------------------------------------------------------------------------------------------------


def fastest_attention(c, batch, positions):
    """The fastest backend of scaled_dot_product_attention for this shape, forward and backward, and the seconds of each."""
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


class Training:
    """A model with its optimizer, trained on random tokens."""

    def __init__(self, args, c, residual):
        self.device, self.dtype = args.device, torch.bfloat16 if args.device == "cuda" else torch.float32
        flash = FlashAttnRes() if args.reads == "flash_attn_res" and residual == "block_attn_res" else None
        torch.manual_seed(1)
        with torch.device(self.device):
            self.model = Model(c, residual, Parts(args.compile == "parts"), flash)
        decayed = [p for p in self.model.parameters() if p.dim() == 2]
        others = [p for p in self.model.parameters() if p.dim() != 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
            lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=self.device == "cuda",
        )  # fmt: skip
        generator = torch.Generator().manual_seed(1)
        shape = (8, args.micro_batch, args.sequence_length + 1)
        self.draws = torch.randint(c["vocab_size"], shape, generator=generator).to(self.device)

    def step(self, passes):
        """One step of `passes` micro-batches; returns its loss and its seconds."""
        begin = time.perf_counter()
        total = torch.zeros((), device=self.device)
        for i in range(passes):
            draw = self.draws[i % len(self.draws)]
            loss = self.model.loss(draw[:, :-1].contiguous(), draw[:, 1:].contiguous(), self.dtype) / passes
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        return total.item(), seconds


def measure(args, c, residual):
    training = Training(args, c, residual)
    first_loss, compile_seconds = training.step(1)
    training.step(2)  # memory is allocated
    steps = [training.step(args.accumulate) for _ in range(args.steps)]
    seconds = sorted(seconds for _, seconds in steps)
    median = seconds[len(seconds) // 2]
    result = {
        "residual": residual,
        "reads": args.reads if residual == "block_attn_res" else "none",
        "tokens_per_second": args.accumulate * args.micro_batch * args.sequence_length / median,
        "step_seconds": median,
        "micro_batch": args.micro_batch,
        "sequence_length": args.sequence_length,
        "accumulate": args.accumulate,
        "first_loss": first_loss,
        "last_loss": steps[-1][0],
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "compile": args.compile,
        "compile_seconds": compile_seconds,
        "torch": torch.__version__,
        "precision": "bf16 matrices and activations, f32 parameters and moments" if args.device == "cuda" else "f32",
    }
    if args.device == "cuda":
        result["device"] = torch.cuda.get_device_name()
        result["peak_bytes"] = torch.cuda.max_memory_allocated()
    return result


def free_memory():
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def measure_fitting(args, c, residual):
    """Measures; while the model does not fit, halves the micro-batch and doubles their number."""
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
    """The model of a model directory in f64, and for each parameter the names of its gradients in the fixture."""
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
    """Compares logits, alpha and gradients with the fixture. Prints the largest difference relative to the largest entry."""
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
    # transformers computed the standard fixture in f32, and all gradients are stored in f32.
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
            except Exception as error:  # the other model is still measured
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
