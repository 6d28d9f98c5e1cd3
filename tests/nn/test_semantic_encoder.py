import math

import pytest
import torch

from taiji.nn.rotary import turns
from taiji.nn.semantic_encoder import (
    BLOCK,
    EPSILON,
    SIZE,
    MemoryBank,
    RotaryBlock,
    SemanticEncoder,
    StartedEncoder,
    TokenStart,
    gate,
    principal_projection,
)

TOKENS = torch.tensor([[2, 3, 4, 0], [5, 0, 0, 0], [0, 0, 0, 0]])
TERMS = torch.tensor([[2, 2, 3, 0], [4, 0, 0, 0], [0, 0, 0, 0]])


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return SemanticEncoder(general=6, domain=5, width=8, layers=2, item=3).double()


@pytest.fixture
def items():
    return torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_a_closed_gate_is_the_encoder_of_general_tokens(encoder, items, monkeypatch):
    opened = encoder(TOKENS, TERMS, items)
    monkeypatch.setattr(encoder.fusion, "openness", lambda general, domain: torch.zeros_like(general[..., :1]))
    closed = encoder(TOKENS, TERMS, items)
    monkeypatch.setattr(encoder.fusion, "forward", lambda general, domain: general)
    assert torch.equal(closed, encoder(TOKENS, TERMS, items))
    assert torch.equal(closed, encoder(TOKENS, TERMS.flip(1), items))
    assert not torch.allclose(closed[:2], opened[:2])


def test_the_gate_is_the_paper_s_formula():
    general, key = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)

    normed = [torch.nn.functional.rms_norm(x, (8,), eps=EPSILON) for x in (general, key)]
    expected = torch.sigmoid((normed[0] * normed[1]).sum(dim=1) / math.sqrt(8))
    torch.testing.assert_close(gate(general, key).squeeze(1), expected)


def test_the_gradient_reaches_the_embeddings_of_the_tokens_that_are_read_and_no_others(encoder, items):
    encoder(TOKENS, TERMS, items).square().sum().backward()
    for table, read in ((encoder.general, {2, 3, 4, 5}), (encoder.domain, {2, 3, 4})):
        touched = table.weight.grad.abs().sum(dim=1) > 0
        assert set(touched.nonzero().flatten().tolist()) == read
    assert encoder.query.weight.grad.abs().sum() > 0  # h_TAR asks by the item


def test_padding_does_not_count_and_a_blank_text_is_zero(encoder, items):
    found = encoder(TOKENS, TERMS, items)
    torch.testing.assert_close(encoder(TOKENS[:, :3], TERMS[:, :3], items), found, rtol=1e-12, atol=1e-12)
    assert not found[2].any() and found[:2].abs().sum() > 0


def test_positions_count_by_their_distance():
    block = RotaryBlock(8).double()
    x, there = torch.randn(2, 5, 8, dtype=torch.float64), torch.ones(2, 5, dtype=torch.bool)
    near, far = (block(x, there, turns(torch.arange(5) + start, 8, x)) for start in (0, 7))
    torch.testing.assert_close(near, far, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(block(x.flip(1), there, turns(torch.arange(5), 8, x)).flip(1), near)


class Encode:
    """A stand-in for an encoder, whose rows tell which text they are of."""

    def __init__(self, scale=1.0):
        self.scale, self.asked = scale, []

    def __call__(self, numbers):
        self.asked.append(numbers)
        return self.scale * numbers[:, None].float() * torch.ones(1, 2)


def test_a_bank_encodes_what_is_not_fresh_once_and_tells_how_stale_it_is():
    bank, encode = MemoryBank(torch.arange(BLOCK + 3), 2), Encode()
    bank.refresh(encode)
    assert [len(numbers) for numbers in encode.asked] == [BLOCK, BLOCK]  # the last block is filled up
    assert torch.equal(bank.rows[:, 0], torch.arange(BLOCK + 3).float())
    bank.refresh(encode)
    assert len(encode.asked) == 2
    assert not bank.staleness(encode).any()
    staleness = bank.staleness(Encode(scale=1.5))
    torch.testing.assert_close(staleness, 0.5 * math.sqrt(2) * torch.arange(BLOCK + 3).float())
    bank.outdated()
    bank.write(torch.tensor([4]), torch.tensor([[-1.0, -1.0]]))
    assert bank.rows[4].tolist() == [-1.0, -1.0] and not bank.fresh.any()


def test_a_saved_bank_is_found_by_the_texts_whatever_their_numbers_are():
    bank, encode = MemoryBank(torch.tensor([0, 30, 10, 20]), 2), Encode()
    bank.refresh(encode)
    other = MemoryBank(torch.tensor([0, 10, 15, 30]), 2)
    other.load_state_dict(bank.state_dict())
    assert other.keys.tolist() == [0, 10, 15, 30]
    assert other.rows[:, 0].tolist() == [0.0, 2.0, 0.0, 1.0] and other.fresh.tolist() == [True, True, False, True]
    bank.outdated()
    other.load_state_dict(bank.state_dict())
    assert not other.fresh.any()  # rows that were stale when they were saved are so still
    with pytest.raises(RuntimeError):
        other.load_state_dict(MemoryBank(torch.arange(3), 4).state_dict())


@pytest.fixture
def start():
    """An embedder's vectors of width 4, and texts' standardisation; two axes."""
    draw = torch.Generator().manual_seed(2)
    general, domain = (torch.randn(n, 4, dtype=torch.float64, generator=draw) for n in (6, 5))
    general[:2], domain[:2] = 0, 0
    axes = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=draw))[0][:2]
    return TokenStart(general, domain, torch.full((4,), 0.1).double(), torch.full((4,), 0.5).double(), axes)


@pytest.fixture
def started(start):
    torch.manual_seed(0)
    return StartedEncoder(general=6, domain=5, width=8, layers=2, item=3, start=start).double()


def test_an_encoder_starts_as_a_function_of_the_embedder_s_vector_of_the_text_and_nothing_else(started, start, items):
    mean = torch.stack([start.general[TOKENS[0, :3]].mean(dim=0), start.general[5]])
    vectors = (torch.nn.functional.normalize(mean, dim=1) - start.centre) / start.scale
    torch.testing.assert_close(started.text_vectors(TOKENS)[:2], vectors)
    read = torch.cat([vectors, torch.zeros(2, 8).double()], dim=1)  # no token has learnt anything
    expected = started.halves(read, items[:2], torch.ones(2, 1))
    expected[:, :2] += vectors @ start.axes.T * SIZE  # the first of 8 places; the texts have two axes
    found = started(TOKENS, TERMS, items)
    torch.testing.assert_close(found[:2], expected)
    torch.testing.assert_close(found[:2, :8], torch.nn.functional.pad(vectors @ start.axes.T * SIZE, (0, 6)))
    assert not found[2].any()  # a blank text
    assert torch.equal(found, started(TOKENS, TERMS.flip(1), items))  # nor do the terms say anything yet


def test_columns_from_the_texts_themselves_are_a_vector_of_their_own(start, items):
    """Both parts of the vector have length 1 before they are standardised; half of the axes come from the texts."""
    near = torch.linalg.qr(torch.arange(9.0, dtype=torch.float64).reshape(3, 3) + torch.eye(3).double())[0]
    draw = torch.Generator().manual_seed(3)
    general, domain = (
        torch.cat([vectors, torch.randn(len(vectors), 3, dtype=torch.float64, generator=draw)], dim=1)
        for vectors in (start.general, start.domain)
    )
    general[:2], domain[:2] = 0, 0
    centre, scale = (torch.cat([values, values[:3]]) for values in (start.centre, start.scale))
    both = TokenStart(general, domain, centre, scale, start.axes, near)
    encoder = StartedEncoder(general=6, domain=5, width=4, layers=1, item=3, start=both).double()
    mean = torch.stack([general[TOKENS[0, :3]].mean(dim=0), general[5]])
    unit = [torch.nn.functional.normalize(part, dim=1) for part in (mean[:, :4], mean[:, 4:])]
    vectors = [(part - 0.1) / 0.5 for part in unit]
    torch.testing.assert_close(encoder.text_vectors(TOKENS)[:2], torch.cat(vectors, dim=1))
    expected = torch.cat([vectors[1] @ near[:2].T, vectors[0] @ start.axes.T], dim=1) * SIZE
    torch.testing.assert_close(encoder(TOKENS, TERMS, items)[:2, :4], expected)


def test_what_is_learnt_of_the_text_s_own_half_comes_at_its_pace(start, items):
    def half(pace):
        torch.manual_seed(0)
        encoder = StartedEncoder(general=6, domain=5, width=8, layers=1, item=3, start=start, pace=pace).double()
        with torch.no_grad():
            for weight in (encoder.general.weight, encoder.view.weight, encoder.share, encoder.halves.alone[2].weight):
                weight.normal_(generator=torch.Generator().manual_seed(1))
            return encoder(TOKENS, TERMS, items)

    still, slow, fast = (half(pace) for pace in (0.0, 0.25, 1.0))
    torch.testing.assert_close(slow[:, :8] - still[:, :8], 0.25 * (fast[:, :8] - still[:, :8]))
    assert (fast[:2, :8] != still[:2, :8]).all() and torch.equal(fast[:, 8:], still[:, 8:])


def test_at_the_first_step_already_the_gradient_reaches_the_tokens_and_the_share_of_the_transformer(started, items):
    (started(TOKENS, TERMS, items) + 1).square().sum().backward()
    touched = started.general.weight.grad.abs().sum(dim=1) > 0
    assert set(touched.nonzero().flatten().tolist()) == {2, 3, 4, 5} and started.share.grad.abs().min() > 0
    with torch.no_grad():
        started.share += 1.0
    started.zero_grad()
    started(TOKENS, TERMS, items).square().sum().backward()
    assert started.domain.weight.grad.any() and started.general_projection.weight.grad.any()


def test_tokens_begin_in_their_principal_axes():
    vectors = torch.tensor([[0.0, 0, 0], [3, 0, 1], [-3, 0, 1], [0, 1, 1], [0, -1, 1]])  # the first row is no token
    found = principal_projection(vectors, 4)(vectors)
    assert found[1:, 2:].abs().max() < 1e-6 and found[3:, 0].abs().max() < 1e-6  # two axes; the second varies by less
    torch.testing.assert_close(found[1:].abs()[:, :2].amax(dim=0), torch.tensor([3.0, 1.0]) * found[1, 0].abs() / 3)
    torch.testing.assert_close(found[1:].square().mean().sqrt(), torch.tensor(0.1))
