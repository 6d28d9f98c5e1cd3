"""Print docs/alignment-models.md: which causal LM classes of transformers can compute a shared prompt once, and how
exactly.

Each class is built from a tiny configuration, in float32 and in bfloat16. Where :func:`supports_sharing` accepts the
model, log-probabilities, gradients and decoding with shared prompts are compared with the model's own forward pass,
which does not share. A run takes minutes.

    python -m tools.alignment_models > docs/alignment-models.md

Progress is written to standard error.
"""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TINY: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "word_embed_proj_dim", "attention_hidden_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_kv_heads"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 256),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "global_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace", "mamba_n_groups"), 1),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size"), 8),
    "vocab_size": 97,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "is_decoder": True,
}  # fmt: skip
SPECIAL: dict[str, dict[str, Any]] = {
    "BambaForCausalLM": {"mamba_n_heads": 4},
    "DeepseekV2ForCausalLM": {"num_experts_per_tok": 2, "num_key_value_heads": 4},
    "Dots3NoteForCausalLM": {"num_key_value_heads": 4},
    "GPTNeoForCausalLM": {"attention_types": [[["global"], 2]]},
    "Gemma4ForCausalLM": {"vocab_size_per_layer_input": 97, "hidden_size_per_layer_input": 8},
    "GraniteMoeHybridForCausalLM": {"mamba_n_heads": 4},
    "LongcatFlashForCausalLM": {
        "num_key_value_heads": 4,
        "ffn_hidden_size": 48,
        "expert_ffn_hidden_size": 16,
        "n_routed_experts": 4,
        "zero_expert_num": 2,
    },
    "Mamba2ForCausalLM": {"num_heads": 4, "head_dim": 16},
    "ZambaForCausalLM": {"num_hidden_layers": 3},
    "ZayaForCausalLM": {"num_experts_per_tok": 1},
}
"""Settings that some classes need in addition to TINY."""
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers")
LARGEST = 20_000_000
"""Largest number of parameters of a model that is tried. A larger model has sizes that TINY does not name."""
ROUNDING = {"float32": 1e-4, "bfloat16": 0.02}
"""Relative error allowed with sharing, beyond twice the error of the unshared forward pass."""


@dataclass(frozen=True)
class Row:
    """Result of a class in one precision.

    Attributes:
        kind: name of the class.
        dtype: precision; empty if the class could not be built.
        served: True if prompts are shared.
        reason: why prompts are not shared.
        errors: for each quantity its name, and the errors without and with sharing, relative to float32.
    """

    kind: str
    dtype: str
    served: bool
    reason: str = ""
    errors: tuple[tuple[str, float, float], ...] = ()

    @property
    def right(self) -> bool:
        """True if the errors with sharing are at most twice those without, plus rounding."""
        return all(ours <= 2 * theirs + ROUNDING[self.dtype] for _, theirs, ours in self.errors)


def kinds() -> list[tuple[str, str]]:
    """Return the names and model types of the causal LM classes."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found: dict[str, str] = {}
    for model_type, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        found.setdefault(name if isinstance(name, str) else name[0], model_type)
    return sorted((name, model_type) for name, model_type in found.items())


def build(name: str, model_type: str) -> Any:
    """Return a tiny model of the class in evaluation mode, with weights drawn from one seed. Settings that are None
    stay None where that works."""
    errors: list[Exception] = []
    for heads, fill, layers in itertools.product((True, False), (False, True), (2, 4)):
        try:
            return _built(name, model_type, _Attempt(layers, fill, heads))
        except Exception as error:
            errors.append(error)
    raise errors[0]


@dataclass(frozen=True)
class _Attempt:
    """One way to make a configuration tiny.

    Attributes:
        layers: number of layers.
        fill: True to set ``head_dim`` and ``num_key_value_heads`` even if they are None.
        heads: True to set the size of the heads, and to let several heads share keys and values.
    """

    layers: int
    fill: bool
    heads: bool


def _built(name: str, model_type: str, how: _Attempt) -> Any:
    import torch
    import transformers

    cls = getattr(transformers, name)
    config_class = cls.config_class or transformers.CONFIG_MAPPING[model_type]
    config = config_class(**_tiny(config_class().to_dict(), how) | SPECIAL.get(name, {}))
    with torch.device("meta"):
        size = sum(p.numel() for p in cls(copy.deepcopy(config)).parameters())
    if size > LARGEST:
        raise ValueError(f"{size:,} parameters with a tiny configuration")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cls(config).eval()
        with torch.no_grad():
            model(input_ids=torch.randint(3, 97, (2, 24)))  # reject a configuration that the class itself cannot run
        return model


def _tiny(values: dict[str, Any], how: _Attempt) -> dict[str, Any]:
    """Return small sizes for the settings that a configuration has. Lists with one entry per layer are shortened."""
    small: dict[str, Any] = {}
    for key, value in values.items():
        if key in LAYERS:
            small[key] = how.layers
        elif key == "head_dim" and not how.heads:
            continue
        elif key == "num_key_value_heads" and not how.heads:
            small[key] = TINY["num_attention_heads"]
        elif key in TINY and (value is not None or (how.fill and key in ("head_dim", "num_key_value_heads"))):
            small[key] = TINY[key]
        elif key in ("layer_types", "mlp_layer_types") and isinstance(value, list):
            small[key] = value[: how.layers]
        elif isinstance(value, dict) and "model_type" in value:
            small[key] = {"model_type": value["model_type"], **_tiny(value, how)}
    return small


def rows(dtypes: tuple[str, ...] = ("float32", "bfloat16")) -> Iterator[Row]:
    """Yield the results of every class, one per precision."""
    import torch

    for name, model_type in kinds():
        try:
            model = build(name, model_type)
        except Exception as error:
            yield Row(name, "", False, f"not built: {_first_line(error)}")
            continue
        for dtype in dtypes:
            yield _tried(model, name, getattr(torch, dtype), dtype)


def _tried(model: Any, name: str, dtype: Any, label: str) -> Row:
    from taiji.language.prefix_support import supports_sharing

    subject = copy.deepcopy(model).to(dtype)
    try:
        served, reason = supports_sharing(subject)
    except Exception as error:
        return Row(name, label, False, f"CRASH {_first_line(error)}")
    if not served:
        return Row(name, label, False, reason)
    try:
        return Row(name, label, True, "", _errors(model.float(), subject))
    except Exception as error:
        return Row(name, label, True, f"CRASH {_first_line(error)}", (("crash", 0.0, float("inf")),))


def _errors(exact: Any, model: Any) -> tuple[tuple[str, float, float], ...]:
    """Return the errors of log-probabilities, gradients and decoding without and with sharing, relative to the float32
    model."""
    import torch

    from taiji.language.prefix_decode import SharedDecoder
    from taiji.language.prefix_forward import shared_logprobs

    ids = torch.randint(3, 97, (60,), generator=torch.Generator().manual_seed(3)).tolist()
    sequences = [ids[:24] + ids[24:31], ids[:24] + ids[31:36], ids[40:57] + ids[36:40]]
    starts = [24, 24, 17]

    def unshared(one: Any) -> torch.Tensor:
        parts = []
        for row, start in zip(sequences, starts):
            logits = one(input_ids=torch.tensor([row]), use_cache=False).logits[0, start - 1 : -1].float()
            parts.append(torch.log_softmax(logits, -1).gather(1, torch.tensor(row[start:])[:, None])[:, 0])
        return torch.cat(parts)

    def gradient(one: Any, values: torch.Tensor) -> torch.Tensor:
        parameters = [p for p in one.parameters() if p.requires_grad]
        factors = torch.linspace(-1, 1, len(values))
        found = torch.autograd.grad((values * factors).sum(), parameters, allow_unused=True)
        return torch.cat(
            [(torch.zeros_like(p) if g is None else g).float().flatten() for p, g in zip(parameters, found)]
        )

    def decoded(one: Any) -> torch.Tensor:
        with torch.no_grad():
            logits = one(input_ids=torch.tensor([sequences[0]]), use_cache=False).logits[0, 23:].float()
        return torch.log_softmax(logits, -1)

    truth, plain, ours = unshared(exact), unshared(model), torch.cat(shared_logprobs(model, sequences, starts).logprobs)
    slopes = gradient(exact, truth), gradient(model, plain), gradient(model, ours)
    decoder = SharedDecoder(model, [ids[:24], ids[40:57]], 1, 7)
    steps = [decoder.logits[0]]
    for place in range(7):
        steps.append(decoder.step([ids[24 + place], ids[36]])[0])
    laws = decoded(exact), decoded(model), torch.log_softmax(torch.stack(steps), -1)
    named = {"log-probabilities": (truth, plain, ours), "gradients": slopes, "decoding": laws}
    return tuple(
        (what, float((b - a).norm() / a.norm()), float((c - a).norm() / a.norm())) for what, (a, b, c) in named.items()
    )


def _first_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"[:110]


def page(found: list[Row]) -> str:
    """Return the page in Markdown."""
    import transformers

    served = [row for row in found if row.served]
    built = [row for row in found if row.dtype]
    lines = [
        "# Models whose shared prompts are computed once",
        "",
        "Generated by `python -m tools.alignment_models`; a slow test repeats the run and compares the verdicts.",
        f"transformers {transformers.__version__}: {len({r.kind for r in found})} causal LM classes, of which",
        f"{len({r.kind for r in built})} can be built from a tiny configuration, and {len({r.kind for r in served})} share prompts. Every other class is trained and decoded",
        "without sharing, with the reason in the log. The columns show two errors relative to the float32 model: without sharing, and after the arrow with sharing.",
        "",
        "| class | precision | shared | log-probabilities | gradients | decoding |",
        "|---|---|---|---|---|---|",
    ]
    for row in served:
        cells = [f"{theirs:.0e} → {ours:.0e}" for _, theirs, ours in row.errors]
        lines.append(f"| {row.kind} | {row.dtype} | {'yes' if row.right else '**wrong**'} | {' | '.join(cells)} |")
    lines += ["", "## Classes without sharing", "", "| class | reason |", "|---|---|"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in found:
        if not row.served:
            reasons.setdefault((row.kind, row.reason.replace("|", "/")), []).append(row.dtype)
    for (kind, reason), where in reasons.items():
        note = "" if len(where) == 2 or where == [""] else f" ({where[0]})"
        lines.append(f"| {kind} | {reason}{note} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page to standard output."""
    import logging

    logging.disable(logging.WARNING)
    found = []
    for row in rows():
        found.append(row)
        verdict = ("served" if row.right else "WRONG") if row.served else row.reason
        print(row.kind, row.dtype, verdict, row.errors, file=sys.stderr, flush=True)
    print(page(found), end="")


if __name__ == "__main__":
    main()
