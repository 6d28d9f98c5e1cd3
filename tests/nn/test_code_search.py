import torch

from taiji.nn.code_search import attend_found, attend_masked, search, shared_levels


def drawn(seed=0, requests=3, candidates=4, length=9, levels=3, width=5):
    random = torch.Generator().manual_seed(seed)
    mine = torch.randint(0, 3, (requests, candidates, levels), generator=random)
    theirs = torch.randint(0, 3, (requests, length, levels), generator=random)
    there = torch.rand(requests, length, generator=random) < 0.8
    query = torch.randn(requests, candidates, width, dtype=torch.float64, generator=random)
    history = torch.randn(requests, length, width, dtype=torch.float64, generator=random)
    return mine, theirs, there, query, history


def test_leading_codes_are_counted():
    mine, theirs, *_ = drawn()
    shared = shared_levels(mine, theirs)
    for r, c, n in torch.cartesian_prod(*map(torch.arange, shared.shape)).tolist():
        count = 0
        for a, b in zip(mine[r, c].tolist(), theirs[r, n].tolist()):
            if a != b or a == 0:
                break
            count += 1
        assert shared[r, c, n] == count


def test_the_search_finds_most_levels_then_the_newest():
    shared, there = torch.tensor([[[1, 3, 0, 2, 3, 3]]]), torch.tensor([[True, True, True, True, False, True]])
    positions, found = search(shared, there, 3, 1)
    assert positions.tolist() == [[[1, 5, 3]]] and found.all()
    positions, found = search(shared, there, 6, 2)
    assert positions[found].tolist() == [1, 5, 3] and found.shape == (1, 1, 6)


def test_attention_in_the_bucket_equals_masked_full_attention():
    for seed in range(5):
        mine, theirs, there, query, history = drawn(seed)
        shared = shared_levels(mine, theirs)
        inside = attend_found(query, history, *search(shared, there, history.shape[1], 1))
        masked = attend_masked(query, history, (shared >= 1) & there.unsqueeze(1))
        torch.testing.assert_close(inside, masked, rtol=0, atol=1e-14)


def test_attention_to_the_best_equals_attention_with_all_others_masked():
    mine, theirs, there, query, history = drawn(7)
    positions, found = search(shared_levels(mine, theirs), there, 2, 1)
    mask = torch.zeros(3, 4, 9, dtype=torch.bool).scatter(2, positions, found)
    torch.testing.assert_close(attend_found(query, history, positions, found), attend_masked(query, history, mask))
    assert mask.sum(dim=2).max() == 2


def test_gradients_are_those_of_masked_full_attention():
    mine, theirs, there, query, history = drawn(1)
    shared = shared_levels(mine, theirs)
    gradients = []
    for attend in (
        lambda h: attend_found(query, h, *search(shared, there, 9, 1)),
        lambda h: attend_masked(query, h, (shared >= 1) & there.unsqueeze(1)),
    ):
        leaf = history.clone().requires_grad_()
        attend(leaf).sin().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_nothing_found_is_zero():
    _, _, _, query, history = drawn()
    positions, found = search(torch.zeros(3, 4, 9, dtype=torch.int64), torch.ones(3, 9, dtype=torch.bool), 4, 1)
    assert not found.any() and not attend_found(query, history, positions, found).any()
