import json

import numpy as np
import pytest
import torch

from taiji.core.errors import ArtifactError, InputError
from taiji.language.aligned_encoder import (
    ANSWER,
    EMB,
    PADDING,
    TEXT,
    AlignedEncoder,
    AlignedSettings,
    info_nce,
    segment_mask,
    sequences,
    text_weight,
)
from taiji.language.causal_lm import LanguageModel
from taiji.language.embed import load_embedder
from taiji.language.tiny import tiny_causal_lm

TEXTS = ["ground coffee", "", "  \n", "milk 2% gallon", "日本 🍣", "coffee beans from somewhere far away"]


def encoder(layers=2, **settings):
    model, tokenizer = tiny_causal_lm(hidden=16, layers=layers, heads=2)
    lm = LanguageModel(model.double(), tokenizer, "tiny")
    made = AlignedEncoder.start(lm, AlignedSettings(places=2, **settings))
    made.model.double()
    made.places.data = made.places.data.double()
    return made


def gradient(made, weight=0.0, cut=False):
    """Largest gradient of an answer's logits with respect to the inputs of the text."""
    batch = sequences([[5, 6, 7]], 2, [([8, 9, 10], 1)])
    table = made.model.get_input_embeddings()
    held = {}

    def keep(module, arguments, output):
        held["inputs"] = output.requires_grad_()
        return output

    handle = table.register_forward_hook(keep)
    try:
        made.model.requires_grad_(False)
        _, loss = made.forward(batch, weight)
        (found,) = torch.autograd.grad(loss, held["inputs"])
    finally:
        handle.remove()
    return found[0, :3].abs().max().item()


def test_segments_see_what_they_should():
    segments = torch.tensor([[TEXT, TEXT, EMB, EMB, ANSWER, ANSWER, PADDING]])
    sees = (segment_mask(segments, torch.float64)[0, 0] == 0).int().tolist()
    assert sees == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]
    warm = segment_mask(segments, torch.float64, 0.25)[0, 0]
    assert warm[4, :2].exp().tolist() == pytest.approx([0.25, 0.25]) and warm[2, 4] < -1e300


def test_answers_know_of_the_text_through_the_embedding_alone():
    """In one layer nothing of the text has reached the EMB places' keys yet; in two it has."""
    assert gradient(encoder(layers=1)) == 0.0
    assert gradient(encoder(layers=2)) > 1e-8
    assert gradient(encoder(layers=1), weight=1.0) > 1e-8


def test_with_full_weight_answers_see_the_text_as_in_plain_attention():
    made = encoder()
    batch = sequences([[5, 6, 7]], 2, [([8, 9, 10], 1)])
    found = made.forward(batch, 1.0)
    inputs = made.model.get_input_embeddings()(batch.ids)
    inputs = torch.cat([inputs[:, :3], made.places[None], inputs[:, 5:]], dim=1)
    out = made.model(inputs_embeds=inputs, output_hidden_states=True)
    torch.testing.assert_close(found[0], out.hidden_states[-1][:, 3:5].mean(dim=1))
    wanted = torch.nn.functional.cross_entropy(out.logits[0, 5:7], torch.tensor([9, 10]))
    torch.testing.assert_close(found[1], wanted)


def test_it_is_an_embedder_whose_vectors_do_not_depend_on_the_company():
    made = encoder()
    vectors = made.encode(TEXTS)
    assert vectors.shape == (6, 16) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 0, 1, 1, 1], atol=1e-6)
    for text, vector in zip(TEXTS, vectors):
        np.testing.assert_allclose(made.encode([text])[0], vector, atol=1e-6)
    assert made.encode([]).shape == (0, 16)


def test_info_nce_leaves_an_item_that_stands_twice_out_of_its_negatives():
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    second = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    items, others = torch.tensor([0, 1, 0]), torch.tensor([5, 6, 5])
    # Rows and columns 0 and 2 have one negative, row and column 1 two; logits are 1 and 0.
    rows = [np.log(1 + np.exp(-1)), np.log(1 + 2 * np.exp(-1)), np.log(1 + np.exp(-1))]
    assert info_nce(first, second, items, others, 1.0).item() == pytest.approx(np.mean(rows))


def test_info_nce_leaves_an_item_that_stands_on_both_sides_out_of_its_negatives():
    vectors = {0: [1.0, 0.0], 1: [0.0, 1.0], 2: [-1.0, 0.0]}
    items, others = [0, 2], [1, 0]  # item 0 is first in one pair and second in the other
    first, second = (torch.tensor([vectors[n] for n in side], dtype=torch.float64) for side in (items, others))
    # Row 0 and column 1 have no negative left; row 1 and column 0 have the cosine of 2 and 1, which is 0.
    rows = [0.0, np.log(1 + np.exp(1)), np.log(1 + np.exp(0)), 0.0]
    found = info_nce(first, second, torch.tensor(items), torch.tensor(others), 1.0).item()
    assert found == pytest.approx(np.mean(rows))


def test_a_question_longer_than_the_answer_tokens_leaves_nothing_to_learn():
    batch = sequences([[5]], 1, [([8, 9], 4)])
    assert batch.ids.shape == batch.labels.shape == (1, 4) and (batch.labels == -100).all()


def test_the_weight_of_the_text_falls_to_zero():
    assert [text_weight(step, 10, 0.4) for step in range(6)] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0, 0.0])
    assert text_weight(0, 10, 0.0) == 0.0


def test_alignment_draws_pairs_together(tmp_path):
    model, tokenizer = tiny_causal_lm(hidden=16, layers=2, heads=2)
    settings = AlignedSettings(places=2, steps=40, batch=8, rate=5e-3, temperature=0.2)
    made = AlignedEncoder.start(LanguageModel(model, tokenizer, "tiny"), settings)
    texts = [f"{kind} {number}" for kind in ("tea", "ink") for number in range(4)]
    pairs = np.asarray([0, 1, 2, 4, 5, 6]), np.asarray([1, 2, 3, 5, 6, 7])
    answers = [("Kind?", text.split()[0]) for text in texts]

    def margin(encoder):
        vectors = encoder.encode(texts)
        cosines = vectors @ vectors.T
        return cosines[:4, :4].mean() + cosines[4:, 4:].mean() - 2 * cosines[:4, 4:].mean()

    before, version = margin(made), made.version
    weights = model.state_dict()["lm_head.weight"].clone()
    made.fit(texts, pairs, answers)
    assert margin(made) > before + 0.3 and made.version != version
    assert torch.equal(model.state_dict()["lm_head.weight"], weights)  # the given model stays as it was
    made.save(tmp_path / "aligned")
    loaded = load_embedder(tmp_path / "aligned", device="cpu")
    assert isinstance(loaded, AlignedEncoder) and loaded.version == made.version
    np.testing.assert_array_equal(loaded.encode(texts), made.encode(texts))
    config = json.loads((tmp_path / "aligned" / "aligned.json").read_text())
    (tmp_path / "aligned" / "aligned.json").write_text(json.dumps({**config, "version": "other"}))
    with pytest.raises(ArtifactError):
        AlignedEncoder.load(tmp_path / "aligned", device="cpu")


def test_too_little_to_align_on_is_said():
    made, none = encoder(), np.zeros(0, int)
    with pytest.raises(InputError):
        made.fit(TEXTS, (none, none))
    with pytest.raises(InputError):
        made.fit(TEXTS, (np.asarray([0]), np.asarray([1])), answers=[("a", "b")])
