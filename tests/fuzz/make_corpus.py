#!/usr/bin/env python3
"""Makes the examples of the targets whose formats are short: tests/fuzz/make_corpus.py"""

import hashlib
import json
import os
import struct

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def put(target, name, content):
    os.makedirs(os.path.join(CORPUS, target), exist_ok=True)
    with open(os.path.join(CORPUS, target, name), "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def safetensors(tensors, metadata=None):
    """tensors: name -> (dtype, shape); the data are zeros."""
    header, offset = {"__metadata__": metadata} if metadata else {}, 0
    for name, (dtype, shape) in tensors.items():
        size = {"F64": 8, "F32": 4, "BF16": 2}[dtype]
        for extent in shape:
            size *= extent
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


CONFIG = {
    "model_type": "qwen3", "vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
    "rope_theta": 1e6, "tie_word_embeddings": True, "hidden_act": "silu", "rope_scaling": None, "eos_token_id": [7, 9],
}
ROUTED = dict(CONFIG, model_type="qwen3_attnres", attnres_mode="block", attnres_num_blocks=2, attnres_gate_type="bias",
              attnres_recency_bias_init=3.0, attnres_source="block_sum")

put("safetensors_header", "three", safetensors({"a": ("F32", [2, 3]), "b": ("BF16", []), "c": ("F64", [0])}, {"format": "pt"}))
put("safetensors_header", "none", safetensors({}))
put("safetensors_header", "twice", struct.pack("<Q", 124) + b"{" + b",".join([b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'] * 2) + b" " * 17 + b"}" + bytes(4))
put("safetensors_header", "deep", struct.pack("<Q", 4000) + b"[" * 4000)
put("safetensors_header", "long", struct.pack("<Q", 2**63 + 8) + b"{}")

put("safetensors_index", "two", json.dumps({"metadata": {"total_size": 8}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
put("safetensors_index", "empty", '{"weight_map": {}}')
put("safetensors_index", "above", '{"weight_map": {"a": "../x", "b": "."}}')

put("model_config", "standard", json.dumps(CONFIG))
put("model_config", "routed", json.dumps(ROUTED))
put("model_config", "transformers_5", json.dumps(dict(CONFIG, rope_parameters={"rope_type": "default", "rope_theta": 5e5}, layer_types=["full_attention"] * 2, num_key_value_heads=None)))
put("model_config", "layers", json.dumps(dict(CONFIG, num_hidden_layers=2147483647)))
put("model_config", "vanishing_eps", json.dumps(dict(CONFIG, rms_norm_eps=1e-50)))

YAML = """run: {dir: runs/x, seed: 3}
model:
  preset: qwen3_0.6b
  residual: block_attn_res
  attn_res: {source: block_sum, num_blocks: 4}
  hidden_size: 128
data:
  train: [a.bin, "b.bin"]
  valid: v.bin
  sequence_length: 256
train:
  steps: 100
  tokens_per_step: 4096
  micro_batch: 2
  optimizer: {learning_rate: 1e-3, eps: 1.0e-8}
  schedule: {kind: wsd, warmup_steps: 10}
checkpoint: {every: 50, keep: all}
"""
put("yaml_config", "plain.yaml", YAML)
put("yaml_config", "cycle.yaml", "run: &a {dir: x, again: *a}\n")
put("yaml_config", "bomb.yaml", "a0: &a0 [1, 1, 1]\n" + "".join(f"a{i}: &a{i} [*a{i-1}, *a{i-1}, *a{i-1}]\n" for i in range(1, 30)))
put("yaml_config", "documents.yaml", YAML + "---\ntrain: {steps: 5}\n")
put("yaml_config", "deep.yaml", "a: " + "[" * 3000)
put("overrides", "several", "run.seed=7\ntrain.optimizer.eps=1e-7\nmodel.head_dim=64\ndata={train: [x, y]}\nmodel.attn_res.num_blocks=2\n")
put("overrides", "odd", "run.dir=\ntrain.steps=010\n=\ntrain=&a [*a]\nrun.seed=1\x04---\n")

def shard(magic, version, count, tokens):
    return struct.pack("<3i", magic, version, count) + bytes(1012) + tokens

put("shard", "uint16", shard(20240520, 1, 5, struct.pack("<5H", 1, 2, 3, 65535, 0)))
put("shard", "uint32", shard(20240801, 7, 3, struct.pack("<3I", 1, 2**31 - 1, 0)))
put("shard", "negative", shard(20240520, 1, -1, b""))
put("shard", "large_id", shard(20240801, 7, 1, struct.pack("<I", 2**31)))

def manifest(files):
    text = json.dumps({"files": files, "sha256": "0" * 64, "version": 2}, indent=2) + "\n"
    return text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest())

FILES = {"config.json": {"bytes": 3, "sha256": "a" * 64}, "model.safetensors": {"bytes": 5000, "sha256": "b" * 64}}
put("manifest", "version_2.json", manifest(FILES))
put("manifest", "version_1.json", json.dumps({"files": FILES, "version": 1}))
put("manifest", "elsewhere.json", manifest({"../x": FILES["config.json"]}))
put("manifest", "negative.json", json.dumps({"files": {"x": {"bytes": -1, "sha256": "a"}}, "version": 1}))

STATE = {"step": "5", "next_batch": "5", "skipped": "0", "tokens_seen": "640", "seed": "1", "train_fingerprint": "a", "valid_fingerprint": "b"}
P = "model.layers.0."
PARAMETERS = {
    "model.embed_tokens.weight": [2, 2], P + "input_layernorm.weight": [2], P + "self_attn.q_proj.weight": [2, 2],
    P + "self_attn.k_proj.weight": [2, 2], P + "self_attn.v_proj.weight": [2, 2], P + "self_attn.o_proj.weight": [2, 2],
    P + "self_attn.q_norm.weight": [2], P + "self_attn.k_norm.weight": [2], P + "post_attention_layernorm.weight": [2],
    P + "mlp.gate_proj.weight": [2, 2], P + "mlp.up_proj.weight": [2, 2], P + "mlp.down_proj.weight": [2, 2], "model.norm.weight": [2],
}
whole = {"exp_avg." + name: ("F32", shape) for name, shape in PARAMETERS.items()}
put("train_state", "whole", safetensors(whole, STATE))
split = dict(whole)
del split["exp_avg.model.embed_tokens.weight"]
put("train_state", "split", safetensors({"exp_avg.model.embed_tokens.weight[0:1]": ("F32", [1]), "exp_avg.model.embed_tokens.weight[1:4]": ("F32", [3]), **split}, STATE))
put("train_state", "range", safetensors({"exp_avg.model.norm.weight[0:" + "9" * 300 + "]": ("F32", [1])}, STATE))
put("train_state", "negative", safetensors(whole, dict(STATE, next_batch="-1")))

BYTES = {"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {"a": 0, "\u0120b": 1, "\u010a": 2}, "merges": []}, "added_tokens": [{"id": 3, "content": "<|end|>"}]}
put("task_jsonl", "ids.jsonl", '{"clean": [1, 2, 3], "corrupted": [4, 2, 3], "answer": 5, "distractor": 6}\n' * 2)
put("task_jsonl", "text.jsonl", '{"clean": "ab", "answer": "c", "group": "x"}\n{"clean": "abc", "answer": [100], "group": 1}\n')
put("task_jsonl", "wrong.jsonl", '{"clean": [1], "corrupted": "abc", "answer": "de", "group": {}}\n\n')
put("task_jsonl", "deep.jsonl", '{"clean": ' + "[" * 300)

put("tokenizer_json", "bytes.json", json.dumps(BYTES))
put("tokenizer_json", "pieces.json", json.dumps({"model": {"type": "Unigram", "vocab": [["<unk>", 0], ["\u2581a", -1.5], ["<0x0A>", -2]]}}))
put("tokenizer_json", "deep.json", '{"decoder": ' + "[" * 3000)
put("tokenizer_json", "fraction.json", json.dumps({"model": {"vocab": {"a": 1.5}}}))
