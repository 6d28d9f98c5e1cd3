"""Against attention in which every group has its own copy of the prefix."""

import pytest
import torch
from torch.nn import functional

from taiji.nn.shared_prefix import Prefix, prefix_attention

R, H, G, T, S, P, E = 2, 3, 4, 2, 3, 5, 4


def draws(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(*shape, dtype=torch.float64) for shape in shapes]


def copied(query, prefix, own):
    """Return the same by concatenation, group by group."""
    out = torch.empty_like(query)
    for row in range(R):
        for group in range(G):
            keys, values, masks = [], [], []
            if prefix is not None:
                keys.append(prefix.keys[row])
                values.append(prefix.values[row])
                mask = prefix.mask[row, group if prefix.mask.shape[1] > 1 else 0]
                masks.append(mask.expand(T, P))
            if own is not None:
                keys.append(own[0][row, :, group])
                values.append(own[1][row, :, group])
                masks.append(torch.ones(T, S, dtype=torch.bool).tril(S - T))
            out[row, :, group] = functional.scaled_dot_product_attention(
                query[row, :, group], torch.cat(keys, 1), torch.cat(values, 1), attn_mask=torch.cat(masks, 1)
            )
    return out


@pytest.mark.parametrize("groups", [1, G], ids=["one mask", "a mask per group"])
@pytest.mark.parametrize("parts", ["both", "prefix", "own"])
def test_equals_a_copy_of_the_prefix_per_group(groups, parts):
    query, keys, values, own_keys, own_values = draws(
        (R, H, G, T, E), (R, H, P, E), (R, H, P, E), (R, H, G, S, E), (R, H, G, S, E)
    )
    mask = torch.rand(R, groups, T, P) < 0.6
    mask[..., 0] = True
    prefix = None if parts == "own" else Prefix(keys, values, mask)
    own = None if parts == "prefix" else (own_keys, own_values)
    found = prefix_attention(query, prefix, own)
    torch.testing.assert_close(found, copied(query, prefix, own), rtol=1e-12, atol=1e-12)


def test_search_in_a_bucket_equals_masked_attention():
    query, keys, values, own_keys, own_values = draws(
        (R, H, G, 1, E), (R, H, P, E), (R, H, P, E), (R, H, G, S, E), (R, H, G, S, E)
    )
    mask = torch.rand(R, G, 1, P) < 0.3
    mask[..., 0] = True
    prefix = Prefix(keys, values, mask, mask & (torch.arange(P) != 1))
    bucket = prefix.gathered()
    assert bucket.keys.shape == (R, H, G, int(mask.sum(dim=-1).max()), E)
    own = own_keys, own_values
    expected = prefix_attention(query, prefix, own)
    torch.testing.assert_close(prefix_attention(query, bucket, own), expected, rtol=1e-12, atol=1e-12)
    recent = prefix_attention(query, bucket.masked(bucket.recent), None)
    torch.testing.assert_close(
        recent, prefix_attention(query, prefix.masked(prefix.recent), None), rtol=1e-12, atol=1e-12
    )
