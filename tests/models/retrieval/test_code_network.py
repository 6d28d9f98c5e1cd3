"""The plain decoder is GPT-NeoX; cached equals uncached; options that start as the identity are; costs are as the
formulas say."""

import numpy as np
import pytest
import torch
from benchmarks.generate_peer import PrefixDictionary, generate, tokens_of, twin

from taiji.models.codes.trie import CodeTrie, LiveTrie
from taiji.models.retrieval import code_network
from taiji.models.retrieval.code_network import BeamScorer, CodeNetwork, Decoding, Past, RequestAttributes
from taiji.models.retrieval.code_settings import CodeDecoderSettings
from taiji.nn.beam_search import beam_search
from taiji.nn.prefix_blocks import PrefixBlock

SIZES = (5, 4, 3)
PLAIN = {"width": 8, "heads": 2, "layers": 2, "dropout": 0.0, "history": 6, "tokens": "codes"}
NONE = np.zeros(0, np.int64)


def network_of(**options) -> CodeNetwork:
    torch.manual_seed(0)
    network = CodeNetwork(SIZES, CodeDecoderSettings.model_validate(PLAIN | options), scenarios=3).double().eval()
    with torch.no_grad():
        network.table.normal_(std=0.5)
    return network


def histories(network: CodeNetwork, rows: int = 3, count: int = 4) -> Past:
    random = np.random.default_rng(0)
    codes = torch.from_numpy(random.integers(0, SIZES, size=(rows, count, 3)))
    s = network.settings
    times = torch.from_numpy(random.random((rows, count, 5))) if s.time else None
    if not s.long_history:
        return Past(codes, times)
    long = torch.from_numpy(random.integers(0, SIZES, size=(rows, s.long_history, 3)))
    return Past(codes, times, long, torch.from_numpy(random.random((rows, s.long_history)) < 0.5))


def targets(groups: int, rows: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, SIZES, size=(rows, groups, 3)))


OPTIONS = {
    "plain": {},
    "items": {"tokens": "items"},
    "cross": {"architecture": "encoder-decoder", "query_key_norm": True, "short": 1, "gate": True},
    "norm, gate, experts": {"query_key_norm": True, "gate": True, "experts": 3},
    "bucket and router": {"bucket": True, "short": 2, "tokens": "items"},
    "sequential heads": {"multi_token": True, "bucket": True},
    "thinking": {"thinking": "latent"},
    "scenarios": {"scenario": "where"},
    "filler": {"thinking": "filler"},
    "long history": {"long_history": 5, "queries": 2, "time": True},
}


@pytest.fixture(params=[4, 1], ids=["masked", "gathered"])
def bucket_search(request, monkeypatch):
    """Buckets as masks, and taken out of the history wherever that is possible."""
    monkeypatch.setattr(code_network, "SMALL", request.param)


@pytest.mark.usefixtures("bucket_search")
@pytest.mark.parametrize("name", OPTIONS)
def test_step_by_step_equals_all_at_once_and_each_group_alone(name):
    """Training reads all places of a row at once; a beam reads one place, code by code, with a cache that moves."""
    network = network_of(**OPTIONS[name])
    past, codes = histories(network), targets(5)
    seen = torch.arange(5).expand(3, 5)
    random = torch.from_numpy(np.random.default_rng(2).random((3, 5, 5)))
    times = random if network.settings.time else None
    prompts = torch.tensor([0, 1, 2, 1, 0]).expand(3, 5) if network.settings.scenario else None
    with torch.no_grad():
        if network.prompts is not None:
            network.prompts.normal_()
        memory = network.read(past)
        together, _ = network.states(memory, seen, codes, RequestAttributes(times, prompts))
        for group in range(5):
            asked = RequestAttributes(
                None if times is None else times[:, group, None], None if prompts is None else prompts[:, group, None]
            )
            decoding = Decoding(network, memory, seen[:, group : group + 1], asked)
            found = [decoding.next(0, torch.zeros(3, 1, dtype=torch.int64))]
            for level in (1, 2):
                decoding.select(torch.zeros(3, 2, dtype=torch.int64))  # two beams that are the same one
                found.append(decoding.next(level, codes[:, group, level - 1, None].expand(3, 2))[:, :1])
            torch.testing.assert_close(torch.cat(found, dim=1), together[:, group], rtol=1e-10, atol=1e-10)
        # What a group has not seen, padding included, does not move its states.
        codes_of = past.codes.clone()
        codes_of[:, 3:] = 0
        other, _ = network.states(
            network.read(Past(codes_of, past.times, past.long, past.long_mask)),
            seen,
            codes,
            RequestAttributes(times, prompts),
        )
        torch.testing.assert_close(other[:, :4], together[:, :4], rtol=1e-10, atol=1e-10)


def test_the_plain_decoder_is_gpt_neox_and_its_search_is_generate():
    network, random = network_of(), np.random.default_rng(3)
    codes = np.unique(random.integers(0, SIZES, size=(25, 3)), axis=0)
    past, seen = histories(network), np.array([4, 2, 3])
    ids, mask = tokens_of(past.codes.numpy(), seen, SIZES)
    beam = 5
    theirs, scores = generate(twin(network), PrefixDictionary(codes, SIZES), ids, mask, 3, beam, scores=True)
    trie = CodeTrie.of(codes, SIZES)
    with torch.no_grad():
        scorer = BeamScorer(network, network.read(past), torch.from_numpy(seen))
        leaves, found = beam_search(scorer, LiveTrie(trie).without(NONE, NONE).children, 3, 3, beam)
    np.testing.assert_array_equal(codes[trie.leaf_items[leaves.numpy()]] + [0, 5, 9], theirs)
    np.testing.assert_allclose(found.numpy(), scores, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"gate": True}, {"time": True}, {"scenario": "where"}, {"experts": 1, "chosen_experts": 1}],
    ids=["gate", "time", "scenario", "one expert"],
)
def test_options_that_start_as_the_identity(options):
    plain, other = network_of(), network_of(**options)
    carried = {name: value for name, value in plain.state_dict().items() if name in other.state_dict()}
    other.load_state_dict(carried, strict=False)
    if "experts" in options:
        for ours, theirs in zip(plain.blocks, other.blocks):
            first, _, second = ours.forward_layer
            experts = theirs.forward_layer
            for target, value in (
                (experts.first, first.weight.T),
                (experts.first_bias, first.bias),
                (experts.second, second.weight.T),
                (experts.second_bias, second.bias),
            ):
                target.data[0] = value.data
    seen, codes = torch.arange(5).expand(3, 5), targets(5)
    times = torch.ones(3, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        expected, _ = plain.states(plain.read(histories(plain)), seen, codes)
        found, _ = other.states(other.read(histories(other)), seen, codes, RequestAttributes(times, seen % 3))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "calls"),
    [({}, 3 * 2), ({"multi_token": True}, 2 + 2), ({"thinking": "filler"}, 2 * 3 * 2)],
    ids=["plain", "heads", "thinking"],
)
def test_block_calls_per_item(options, calls, monkeypatch):
    """L codes through D blocks are D · L calls; with sequential heads D + L − 1; with a step before each code 2 · D ·
    L."""
    network, counted = network_of(**options), []
    forward = PrefixBlock.forward
    monkeypatch.setattr(PrefixBlock, "forward", lambda self, *parts: counted.append(1) or forward(self, *parts))
    trie = CodeTrie.of(np.argwhere(np.ones(SIZES, bool)), SIZES)
    with torch.no_grad():
        scorer = BeamScorer(network, network.read(histories(network)), torch.tensor([4, 4, 4]))
        beam_search(scorer, LiveTrie(trie).without(NONE, NONE).children, 3, 3, 4)
    assert len(counted) == calls


def test_a_bucket_is_attention_to_what_shares_the_first_code():
    network = network_of(bucket=True, tokens="items")
    past = Past(torch.tensor([[[1, 0, 0], [2, 1, 1], [1, 3, 2], [4, 0, 0]]]))
    decoding = Decoding(network, network.read(past), torch.tensor([[4, 3]]))
    assert decoding.mask[0, :, 0].tolist() == [[True] * 5, [True] * 4 + [False]]
    assert decoding.bucket(torch.tensor([[1, 4]]))[0, :, 0].tolist() == [
        [True, True, False, True, False],
        [True, True, True, True, False],  # nothing that it has seen has code 4: all of it
    ]
