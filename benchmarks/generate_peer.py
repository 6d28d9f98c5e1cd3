"""Copy of the plain generative decoder as a model of Hugging Face transformers, with the same weights.

`benchmarks.generative` times its ``generate`` in comparison with our beam search. In shapes, B is the number of
requests, n the length of a history, and L the number of codes per item.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from taiji.models.retrieval.code_network import CodeNetwork


class LevelNeoX(GPTNeoXForCausalLM):
    """GPT-NeoX that predicts only codes of the level that comes next, as our decoder does with its softmax per level.

    Token ids are numbered in this order: the codes of the first level, the codes of the further levels, the token that
    starts a history, and the token that begins an item.
    """

    levels: torch.Tensor
    """Boolean mask (vocabulary, vocabulary): True if the second token may follow the first one."""

    def forward(self, input_ids: torch.Tensor, **arguments: Any) -> Any:  # type: ignore[override]
        """Return the logits, with −∞ for tokens that may not follow."""
        out = super().forward(input_ids=input_ids, **arguments)
        out.logits = out.logits.masked_fill(~self.levels[input_ids[:, -out.logits.shape[1] :]], -torch.inf)
        return out


def twin(network: CodeNetwork) -> LevelNeoX:
    """Return a model that computes the same as ``network``, which must be a plain decoder with one token per code."""
    s, sizes = network.settings, network.sizes
    assert s.architecture == "decoder" and s.tokens == "codes"
    count, width = sum(sizes), s.width
    config = GPTNeoXConfig(
        vocab_size=count + 2,
        hidden_size=width,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        intermediate_size=s.expansion * width,
        hidden_act="gelu",
        use_parallel_residual=False,
        tie_word_embeddings=False,
        max_position_embeddings=s.history * len(sizes) + 16,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=count,
    )
    model = LevelNeoX(config).to(network.table.dtype).eval()
    with torch.no_grad():
        table = network.table
        model.gpt_neox.embed_in.weight.copy_(torch.cat([table * width**0.5, network.start[None], network.begin[None]]))
        model.lm_head.weight.zero_()
        model.lm_head.weight[:count] = table
        for ours, theirs in zip(network.blocks, model.gpt_neox.layers):
            pairs = [
                (ours.attention_norm, theirs.input_layernorm),
                (ours.forward_norm, theirs.post_attention_layernorm),
                (ours.out, theirs.attention.dense),
                (ours.forward_layer[0], theirs.mlp.dense_h_to_4h),
                (ours.forward_layer[2], theirs.mlp.dense_4h_to_h),
            ]
            for mine, other in pairs:
                other.load_state_dict(mine.state_dict())
            weight = ours.projection.weight.view(3, s.heads, -1, width).transpose(0, 1).reshape(3 * width, width)
            bias = ours.projection.bias.view(3, s.heads, -1).transpose(0, 1).reshape(-1)
            theirs.attention.query_key_value.weight.copy_(weight)
            theirs.attention.query_key_value.bias.copy_(bias)
        model.gpt_neox.final_layer_norm.load_state_dict(network.norm.state_dict())
    follows = torch.zeros(count + 2, count + 2, dtype=torch.bool)
    starts = np.cumsum([0, *sizes])
    for level in range(len(sizes) - 1):
        follows[starts[level] : starts[level + 1], starts[level + 1] : starts[level + 2]] = True
    follows[starts[len(sizes) - 1] : count, :count] = True  # irrelevant: generation ends with a whole item
    follows[count, :count] = True
    follows[count + 1, : sizes[0]] = True
    model.levels = follows
    return model


class PrefixDictionary:
    """Callback for ``prefix_allowed_tokens_fn``, which looks up the possible next codes in a dictionary of prefixes.

    Args:
        codes: (N, L) codes of the items.
        sizes: number of codes per level.
    """

    def __init__(self, codes: np.ndarray, sizes: tuple[int, ...]) -> None:
        self.begin = sum(sizes) + 1
        self.children: dict[tuple[int, ...], list[int]] = {}
        starts = np.cumsum([0, *sizes[:-1]])
        for row in np.unique(codes, axis=0) + starts:
            for level in range(len(row)):
                following = self.children.setdefault(tuple(row[:level].tolist()), [])
                if not following or following[-1] != row[level]:
                    following.append(int(row[level]))

    def __call__(self, batch: int, tokens: torch.Tensor) -> list[int]:
        """Return the tokens that may come next after ``tokens``."""
        ids = tokens.tolist()
        return self.children[tuple(ids[len(ids) - ids[::-1].index(self.begin) :])]


def tokens_of(codes: np.ndarray, seen: np.ndarray, sizes: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask (B, 2 + n · L) of histories, padded on the left.

    Args:
        codes: (B, n, L) codes of the items of each history.
        seen: (B,) number of items of each history; the codes after them are ignored.
        sizes: number of codes per level.
    """
    rows, count, levels = codes.shape
    start, begin = sum(sizes), sum(sizes) + 1
    out = np.full((rows, 2 + count * levels), start)
    mask = np.zeros(out.shape, np.int64)
    flat = (codes + np.cumsum([0, *sizes[:-1]])).reshape(rows, -1)
    for row, items in enumerate(seen):
        length = items * levels
        out[row, -1], out[row, -1 - length : -1] = begin, flat[row, :length]
        mask[row, -2 - length :] = 1
    return torch.from_numpy(out), torch.from_numpy(mask)


def generate(
    model: LevelNeoX,
    allowed: PrefixDictionary,
    ids: torch.Tensor,
    mask: torch.Tensor,
    levels: int,
    beam: int,
    scores: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the codes (B, beam, L) that ``generate`` finds, as token ids, and their scores (B, beam) if ``scores``."""
    with torch.no_grad():
        out: Any = model.generate(
            ids,
            attention_mask=mask,
            num_beams=beam,
            num_return_sequences=beam,
            max_new_tokens=levels,
            min_new_tokens=levels,
            do_sample=False,
            length_penalty=0.0,
            prefix_allowed_tokens_fn=allowed,
            return_dict_in_generate=True,
            output_scores=scores,
            use_cache=True,
        )
    shape = len(ids), beam
    codes = out.sequences[:, -levels:].reshape(*shape, levels).numpy()
    return codes, out.sequences_scores.reshape(shape).numpy() if scores else None
