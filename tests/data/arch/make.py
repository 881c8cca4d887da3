#!/usr/bin/env python3
"""Tiny models with random weights as GGUF, and what Hugging Face transformers computes with them in float64.

    pip install torch transformers gguf numpy zstandard
    python make.py FOLDER [NAME ...]

Writes FOLDER/NAME/model.gguf and golden.gguf, packed as `.planes.zst`, and prints how far off typical mistakes are.
Weights are rounded to bf16, which packs well; the arithmetic and all else are exact.
"""
import copy
import pathlib
import sys
import zlib

import gguf
import numpy as np
import torch
import transformers
from torch.overrides import TorchFunctionMode

sys.path.append(str(pathlib.Path(__file__).parent.parent))
import pack

VOCAB = 320
LENGTHS = (12, 40)
CASES = {}


class Doubles(TorchFunctionMode):
    """Gives float64 to whoever asks for float32: transformers does so for norms, rotary tables and softmax."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.float:
            function = torch.Tensor.double
        widen = lambda x: torch.float64 if x is torch.float32 else x
        return function(*map(widen, args), **{key: widen(x) for key, x in (kwargs or {}).items()})


# Weights ------------------------------------------------------------------------------------------------------------


def bf16(values):
    """Rounds to the next bf16, half away from zero."""
    words = np.asarray(values, np.float32).view(np.uint32)
    return ((words + 0x8000) & 0xFFFF0000).view(np.float32)


def draw(seed, name, shape):
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise = rng.standard_normal(shape)
    if len(shape) == 1:
        is_gain = "norm" in name.lower() and name.endswith("weight")
        return bf16(is_gain + 0.3 * noise)
    if "embed" in name:
        return bf16(noise)
    gain = 1.4 if any(part in name for part in ("q_proj", "k_proj", "query", "key", "gate.weight")) else 1.0
    return bf16(gain * noise / np.sqrt(shape[-1]))


def build(make, config, seed):
    config._experts_implementation = "eager"
    torch.set_default_dtype(torch.float64)
    with Doubles():
        model = make(config).eval()
        model.set_attn_implementation("eager")
    weights = dict(model.named_parameters())
    weights |= {name: b for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")}
    for name, weight in weights.items():
        weight.data = torch.from_numpy(draw(seed, name, tuple(weight.shape)).astype(np.float64))
    model.tie_weights()
    return model


def weights_of(model):
    """All weights in f32, a tied head left out."""
    weights = {name: value.numpy().astype(np.float32) for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    return weights


def compute(model, tokens):
    with Doubles(), torch.no_grad():
        result = model(input_ids=torch.tensor([tokens]))
        result = result.logits if hasattr(result, "logits") else result.last_hidden_state
    assert result.dtype == torch.float64
    return result[0].numpy()


def router_gap(model, sequences):
    """The least distance between an expert (or group of experts) that is chosen and one that is not."""
    gaps = []

    def note(module, _, output):
        scores = output[0]
        if hasattr(module, "e_score_correction_bias"):
            scores = scores.sigmoid() + module.e_score_correction_bias
            groups = scores.unflatten(1, (module.num_group, -1))
            sums = groups.topk(2).values.sum(-1)
            ranked = sums.sort(descending=True)
            gaps.append(ranked.values[:, module.topk_group - 1] - ranked.values[:, module.topk_group])
            chosen = torch.zeros_like(sums).scatter(1, ranked.indices[:, : module.topk_group], 1).bool()
            scores = groups.masked_fill(~chosen[..., None], -torch.inf).flatten(1)
        ranked = scores.sort(descending=True).values
        gaps.append(ranked[:, module.top_k - 1] - ranked[:, module.top_k])

    routers = [module for module in model.modules() if type(module).__name__.lower().endswith("topkrouter")]
    hooks = [router.register_forward_hook(note) for router in routers]
    for tokens in sequences:
        compute(model, tokens)
    for hook in hooks:
        hook.remove()
    return min((float(gap.min()) for gap in gaps), default=np.inf)


# GGUF ---------------------------------------------------------------------------------------------------------------


def rotary_pairs(rows, heads):
    """Rows of each head so that the halves that rotate together become neighbours."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def neighbours(weights, config):
    """What the converter does with query and key of the llama family."""
    heads = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
    for name in weights:
        suffix = ".".join(name.split(".")[-2:])
        if suffix in heads:
            weights[name] = rotary_pairs(weights[name], heads[suffix])
    return weights


def split_experts(weights):
    for name in [name for name in weights if name.endswith("experts.gate_up_proj")]:
        gate, up = np.split(weights.pop(name), 2, axis=1)
        stem = name.removesuffix("gate_up_proj")
        weights |= {stem + "gate_proj": gate, stem + "up_proj": up}
    return weights


LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.experts.gate_proj": "ffn_gate_exps.weight",
    "mlp.experts.up_proj": "ffn_up_exps.weight",
    "mlp.experts.down_proj": "ffn_down_exps.weight",
}
OLMO2 = LAYER | {
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
}
DEEPSEEK = LAYER | {
    "self_attn.q_a_proj.weight": "attn_q_a.weight",
    "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
    "self_attn.q_b_proj.weight": "attn_q_b.weight",
    "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
    "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight",
    "self_attn.kv_b_proj.weight": "attn_kv_b.weight",
    "self_attn.k_b": "attn_k_b.weight",
    "self_attn.v_b": "attn_v_b.weight",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.shared_experts.gate_proj.weight": "ffn_gate_shexp.weight",
    "mlp.shared_experts.up_proj.weight": "ffn_up_shexp.weight",
    "mlp.shared_experts.down_proj.weight": "ffn_down_shexp.weight",
}
BERT = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
BERT = {f"{theirs}.{part}": f"{ours}.{part}" for theirs, ours in BERT.items() for part in ("weight", "bias")}
NOMIC = LAYER | {
    "self_attn.qkv": "attn_qkv.weight",
    "post_attention_layernorm.weight": "attn_output_norm.weight",
    "post_attention_layernorm.bias": "attn_output_norm.bias",
    "post_mlp_layernorm.weight": "layer_output_norm.weight",
    "post_mlp_layernorm.bias": "layer_output_norm.bias",
}
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}


def gguf_name(name, layer_names):
    if name in WHOLE:
        return WHOLE[name]
    layer, rest = name.split("layers." if "layers." in name else "layer.", 1)[1].split(".", 1)
    return f"blk.{layer}.{layer_names[rest]}"


def add_bpe(writer):
    """A byte-level vocabulary: the 256 bytes, some merges, a control token, unused ones."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    tokens = [*map(chr, printable), *(chr(256 + i) for i in range(len(others)))]
    merges = "Ġ t|h e|Ġt he|i n|e r|o n|Ġ a|r e|a t|Ġa t|o r|e s|in g|Ġ s|a n|an d".split("|")
    tokens += [merge.replace(" ", "") for merge in merges]
    kinds = [gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.CONTROL]
    end = len(tokens)
    tokens.append("<|endoftext|>")
    kinds += [gguf.TokenType.UNUSED] * (VOCAB - len(tokens))
    tokens += [f"[PAD{i}]" for i in range(len(tokens), VOCAB)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)


def add_wordpiece(writer):
    """A WordPiece vocabulary in the converter's spelling: words begin with U+2581, continuations have no ##."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    words = "the of and to in is it was for on with he she at by his her are be this have from or had not but you we".split()
    ends = "s ed ing er ly es en al le re on an ion ation ness ment able y".split()
    tokens = special + ["\u2581" + letter for letter in letters] + [c for c in letters if c.isalnum()]
    tokens += ["\u2581" + word for word in words] + [end for end in ends if len(end) > 1]
    tokens += ["\u2581" + c for c in "äöüßéèñ中文日本"]
    kinds = [gguf.TokenType.CONTROL] * len(special) + [gguf.TokenType.NORMAL] * (len(tokens) - len(special))
    kinds[1] = gguf.TokenType.UNKNOWN
    kinds += [gguf.TokenType.UNUSED] * (VOCAB - len(tokens))
    tokens += [f"[unused{i}]" for i in range(len(tokens), VOCAB)]
    assert len(set(tokens)) == VOCAB
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_eos_token_id(3)
    writer.add_mask_token_id(4)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)


def add_value(writer, key, value):
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    kinds[type(value)](key, value)


def write_model(path, case, config, weights):
    writer = gguf.GGUFWriter(path, case["arch"])
    writer.add_type("model")
    writer.add_name(f"tiny random {case['name']}")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in case["keys"](config).items():
        add_value(writer, f"{case['arch']}.{key}", value)
    case["vocabulary"](writer)
    for name, weight in case["export"](weights, config).items():
        writer.add_tensor(gguf_name(name, case["names"]), np.ascontiguousarray(weight))
    pack.save(writer, path)


def write_golden(path, case, sequences, results):
    writer = gguf.GGUFWriter(path, "golden")
    writer.add_string("golden.model", case["name"])
    writer.add_string("golden.reference", f"transformers {transformers.__version__}, float64, eager")
    for i, (tokens, result) in enumerate(zip(sequences, results)):
        writer.add_tensor(f"tokens.{i}", np.array(tokens, np.int32))
        writer.add_tensor(f"{case['result']}.{i}", result.astype(np.float32))
    pack.save(writer, path)


# Mistakes: each takes a model (a copy) and its config, and gives a wrong model or changes of the config ---------------


def altered(change):
    """A mistake that replaces weights: change(name, weight, config)."""

    def mistake(model, config):
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            wrong = change(name, weight.data.numpy(), config)
            weight.data = torch.from_numpy(np.ascontiguousarray(wrong))
        return model

    return mistake


def without(*parts):
    return altered(lambda name, weight, _: 0 * weight if any(part in name for part in parts) else weight)


def other_pairs(name, weight, config):
    heads = {"q_proj": config.num_attention_heads, "k_proj": getattr(config, "num_key_value_heads", None)}
    kind = name.split(".")[-2] if "." in name else ""
    return rotary_pairs(weight, heads[kind] or config.num_attention_heads) if kind in heads else weight


def hooked(suffix, hook):
    """A mistake in the output of all modules whose class ends so."""

    def mistake(model, _):
        for module in model.modules():
            if type(module).__name__.endswith(suffix):
                module.register_forward_hook(hook)
        return model

    return mistake


def plain_softmax(module, _, output):
    logits, _, chosen = output
    return logits, logits.softmax(-1).gather(1, chosen), chosen


def renormalised(module, _, output):
    logits, scores, chosen = output
    return logits, module.routed_scaling_factor * scores / scores.sum(-1, keepdim=True), chosen


def per_head_norms(model, config):
    size = config.hidden_size // config.num_attention_heads

    def norm(self, x):
        heads = x.unflatten(-1, (-1, size))
        scale = torch.rsqrt(heads.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (heads * scale).flatten(-2) * self.weight

    for layer in model.model.layers:
        for module in (layer.self_attn.q_norm, layer.self_attn.k_norm):
            module.forward = norm.__get__(module)
    return model


def swapped_gate(model, _):
    for layer in model.layers:
        layer.mlp.gate_proj, layer.mlp.up_proj = layer.mlp.up_proj, layer.mlp.gate_proj
    return model


# Cases --------------------------------------------------------------------------------------------------------------


def case(name, arch, config, make=transformers.AutoModelForCausalLM.from_config, *, keys, mistakes, names=LAYER,
         export=lambda weights, _: weights, vocabulary=add_bpe, result="logits"):
    CASES[name] = locals()


SIZES = dict(vocab_size=VOCAB, max_position_embeddings=4096, bos_token_id=None, eos_token_id=None, pad_token_id=None)


def decoder_keys(config):
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
    }


def llama_keys(config):
    size = config.hidden_size // config.num_attention_heads
    return decoder_keys(config) | {"vocab_size": VOCAB, "rope.dimension_count": size}


def mixtral_keys(config):
    experts = {"expert_count": config.num_local_experts, "expert_used_count": config.num_experts_per_tok}
    return llama_keys(config) | experts


case(
    "mixtral",
    "llama",
    transformers.MixtralConfig(
        **SIZES, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=6, num_experts_per_tok=2, rms_norm_eps=1e-5, sliding_window=None,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=False,
    ),
    keys=mixtral_keys,
    export=lambda weights, config: split_experts(neighbours(weights, config)),
    mistakes={
        "half-split rotary": altered(other_pairs),
        "weights of the chosen not renormalised": hooked("TopKRouter", plain_softmax),
        "top 1": lambda model, config: {"num_experts_per_tok": 1},
        "top 3": lambda model, config: {"num_experts_per_tok": 3},
    },
)


def encoder_keys(config):
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.layer_norm_epsilon": float(config.layer_norm_eps),
        "attention.causal": False,
        "pooling_type": 1,
    }


def without_buffers(weights, _):
    return {name: weight for name, weight in weights.items() if not name.endswith("_ids")}


case(
    "bert",
    "bert",
    transformers.BertConfig(
        vocab_size=VOCAB, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=64, layer_norm_eps=1e-5, hidden_act="gelu",
    ),
    lambda config: transformers.BertModel(config, add_pooling_layer=False),
    keys=encoder_keys, names=BERT, export=without_buffers, vocabulary=add_wordpiece, result="hidden",
    mistakes={
        "positions ignored": without("position_embeddings"),
        "token types ignored": without("token_type_embeddings"),
        "token type 1": altered(lambda name, w, _: w[::-1] if "token_type_embeddings" in name else w),
        "biases ignored": without("dense.bias", "query.bias", "key.bias", "value.bias"),
        "norm biases ignored": without("LayerNorm.bias"),
        "causal attention": lambda model, config: {"is_decoder": True},
        "tanh gelu": lambda model, config: {"hidden_act": "gelu_pytorch_tanh"},
    },
)


def fused(weights, config):
    weights = without_buffers(weights, config)
    for layer in range(config.num_hidden_layers):
        stem = f"layers.{layer}.self_attn."
        weights[stem + "qkv"] = np.concatenate([weights.pop(f"{stem}{kind}_proj.weight") for kind in "qkv"])
    return weights


case(
    "nomic-bert",
    "nomic-bert",
    transformers.NomicBertConfig(
        vocab_size=VOCAB, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=2048, layer_norm_eps=1e-12,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
    ),
    lambda config: transformers.NomicBertModel(config, add_pooling_layer=False),
    keys=lambda config: encoder_keys(config) | {"rope.freq_base": config.rope_parameters["rope_theta"]},
    names=NOMIC, export=fused, vocabulary=add_wordpiece, result="hidden",
    mistakes={
        "interleaved rotary": altered(other_pairs),
        "rope base 10000": lambda m, c: {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        "gate and up swapped": swapped_gate,
        "token types ignored": without("token_type_embeddings"),
    },
)

case(
    "olmo2",
    "olmo2",
    transformers.Olmo2Config(
        **SIZES, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        tie_word_embeddings=False,
    ),
    keys=decoder_keys, names=OLMO2,
    mistakes={
        "interleaved rotary": altered(other_pairs),
        "q/k norms per head": per_head_norms,
        "q/k norm weights ignored": altered(lambda name, w, _: 0 * w + 1 if "q_norm" in name or "k_norm" in name else w),
    },
)



def olmo3_keys(config):
    """Of the scaling nothing says which layers have it, nor which have windows: the architecture does."""
    every, scaled = config.rope_parameters["sliding_attention"], config.rope_parameters["full_attention"]
    config = copy.copy(config)
    config.rope_parameters = every
    return decoder_keys(config) | {
        "attention.sliding_window": config.sliding_window,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": scaled["factor"],
        "rope.scaling.original_context_length": scaled["original_max_position_embeddings"],
    }


def olmo3_rope(**changes):
    plain = dict(rope_type="default", rope_theta=5e5)
    scaled = dict(rope_type="yarn", rope_theta=5e5, factor=8.0, original_max_position_embeddings=512)
    return {"rope_parameters": {"sliding_attention": plain, "full_attention": scaled} | changes}


case(
    "olmo3",
    "olmo2",
    transformers.Olmo3Config(
        **SIZES, hidden_size=64, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-6, sliding_window=8, tie_word_embeddings=True, **olmo3_rope(),
    ),
    keys=olmo3_keys, names=OLMO2,
    mistakes={
        "no windows": lambda m, c: {"layer_types": ["full_attention"] * 4},
        "windows everywhere": lambda m, c: {"layer_types": ["sliding_attention"] * 4},
        "a window of 9": lambda m, c: {"sliding_window": 9},
        "no scaling": lambda m, c: olmo3_rope(full_attention=dict(rope_type="default", rope_theta=5e5)),
        "scaling everywhere": lambda m, c: olmo3_rope(sliding_attention=c.rope_parameters["full_attention"]),
    },
)

case(
    "smollm3",
    "smollm3",
    transformers.SmolLM3Config(
        **SIZES, hidden_size=64, intermediate_size=96, num_hidden_layers=5, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 5e6},
        tie_word_embeddings=True, no_rope_layer_interval=4, use_sliding_window=False,
    ),
    keys=llama_keys, export=neighbours,
    mistakes={
        "half-split rotary": altered(other_pairs),
        "rotary in all layers": lambda model, config: {"no_rope_layers": [1] * 5},
        "no rotary in layers 0 and 4 instead of 3": lambda model, config: {"no_rope_layers": [0, 1, 1, 1, 0]},
    },
)


def absorbed(weights, config):
    """kv_b in two: the key's part transposed, as it is multiplied with queries, and the value's part."""
    weights = split_experts(weights)
    for layer in range(config.num_hidden_layers):
        stem = f"model.layers.{layer}.self_attn."
        both = weights.pop(stem + "kv_b_proj.weight").reshape(config.num_attention_heads, -1, config.kv_lora_rank)
        weights[stem + "k_b"] = both[:, : config.qk_nope_head_dim].swapaxes(1, 2)
        weights[stem + "v_b"] = both[:, config.qk_nope_head_dim :]
    return weights


def deepseek_common(config):
    rope = config.rope_parameters
    keys = decoder_keys(config) | {
        "vocab_size": VOCAB,
        "leading_dense_block_count": config.first_k_dense_replace,
        "attention.kv_lora_rank": config.kv_lora_rank,
        "expert_count": config.n_routed_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_shared_count": config.n_shared_experts,
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_weights_scale": config.routed_scaling_factor,
        "expert_gating_func": 2 if isinstance(config, transformers.DeepseekV3Config) else 1,
        "rope.dimension_count": config.qk_rope_head_dim,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": rope["factor"],
        "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
        "rope.scaling.yarn_log_multiplier": 0.1 * rope["mscale_all_dim"],
    }
    if config.q_lora_rank:
        keys["attention.q_lora_rank"] = config.q_lora_rank
    if config.norm_topk_prob:
        keys["expert_weights_norm"] = True
    if config.n_group:
        keys |= {"expert_group_count": config.n_group, "expert_group_used_count": config.topk_group}
    return keys


def absorbed_keys(config):
    return deepseek_common(config) | {
        "attention.head_count_kv": 1,
        "attention.key_length": config.kv_lora_rank + config.qk_rope_head_dim,
        "attention.value_length": config.kv_lora_rank,
        "attention.key_length_mla": config.qk_nope_head_dim + config.qk_rope_head_dim,
        "attention.value_length_mla": config.v_head_dim,
    }


def expanded_keys(config):
    return deepseek_common(config) | {
        "attention.key_length": config.qk_nope_head_dim + config.qk_rope_head_dim,
        "attention.value_length": config.v_head_dim,
    }


def yarn(mscale):
    return dict(rope_type="yarn", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=512, mscale=mscale,
                mscale_all_dim=mscale, beta_fast=32, beta_slow=1)


LATENT = dict(
    **SIZES, hidden_size=64, intermediate_size=96, moe_intermediate_size=32, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=4, n_shared_experts=2, kv_lora_rank=32, qk_rope_head_dim=16,
    qk_nope_head_dim=24, v_head_dim=20, first_k_dense_replace=1, rms_norm_eps=1e-6, tie_word_embeddings=False,
)
LITE = transformers.DeepseekV2Config(
    **LATENT, n_routed_experts=8, num_experts_per_tok=3, q_lora_rank=None, topk_method="greedy", norm_topk_prob=False,
    routed_scaling_factor=1.5, rope_parameters=yarn(0.707),
)
LITE_MISTAKES = {
    "weights of the chosen renormalised": hooked("TopkRouter", renormalised),
    "shared experts ignored": without("shared_experts"),
    "mscale ignored in the score scale": lambda m, c: {"rope_parameters": yarn(0.707) | {"mscale": 0, "mscale_all_dim": 0, "attention_factor": 1.0}},
    "routed weights not scaled": lambda model, config: {"routed_scaling_factor": 1.0},
}
case("deepseek2-lite", "deepseek2", LITE, keys=absorbed_keys, names=DEEPSEEK, export=absorbed, mistakes=LITE_MISTAKES)
case("deepseek2-expanded", "deepseek2", LITE, keys=expanded_keys, names=DEEPSEEK,
     export=lambda weights, _: split_experts(weights), mistakes={})
case(
    "deepseek3",
    "deepseek2",
    transformers.DeepseekV3Config(
        **LATENT, n_routed_experts=8, num_experts_per_tok=2, q_lora_rank=24, n_group=4, topk_group=2,
        norm_topk_prob=True, routed_scaling_factor=2.5, rope_parameters=yarn(1.0), num_nextn_predict_layers=0,
    ),
    keys=absorbed_keys, names=DEEPSEEK, export=absorbed,
    mistakes={
        "bias of the choice ignored": without("e_score_correction_bias"),
        "groups ignored": lambda model, config: {"n_group": 1, "topk_group": 1},
        "weights of the chosen not renormalised": lambda model, config: {"norm_topk_prob": False},
        "routed weights not scaled": lambda model, config: {"routed_scaling_factor": 1.0},
        "shared experts ignored": without("shared_experts"),
        "mscale ignored in the score scale": lambda m, c: {"rope_parameters": yarn(1.0) | {"mscale": 0, "mscale_all_dim": 0, "attention_factor": 1.0}},
        "q_a norm weights ignored": altered(lambda name, w, _: 0 * w + 1 if "q_a_layernorm" in name else w),
    },
)


def nmse(results, exact):
    error = sum(((a - b) ** 2).sum() for a, b in zip(results, exact))
    return error / sum((b**2).sum() for b in exact)


def separated(case, config, sequences):
    """The first seed with which rounding cannot change the choice of experts."""
    least = 0.003 if case["name"] == "deepseek3" else 0.01
    for seed in range(1, 500):
        model = build(case["make"], config, seed)
        gap = router_gap(model, sequences)
        if gap >= least:
            return model, seed, gap
    raise ValueError("no seed separates the experts")


def run(folder, case):
    config, name = case["config"], case["name"]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    sequences = [rng.integers(0, VOCAB, length).tolist() for length in LENGTHS]
    model, seed, gap = separated(case, copy.deepcopy(config), sequences)
    exact = [compute(model, tokens) for tokens in sequences]
    print(f"{name}: seed {seed}, router gap {gap:.4f}, std {np.concatenate(exact).std():.3f}")
    for label, mistake in case["mistakes"].items():
        wrong = mistake(copy.deepcopy(model), config)
        if isinstance(wrong, dict):
            wrong = build(case["make"], type(config)(**(config.to_dict() | wrong)), seed)
        print(f"    {label}: {nmse([compute(wrong, tokens) for tokens in sequences], exact):.1e}", flush=True)
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    write_model(path / "model.gguf", case, config, weights_of(model))
    write_golden(path / "golden.gguf", case, sequences, exact)


def main():
    torch.set_num_threads(1)
    for name in sys.argv[2:] or CASES:
        run(pathlib.Path(sys.argv[1]), CASES[name])


if __name__ == "__main__":
    main()
