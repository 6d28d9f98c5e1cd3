import numpy as np
import pytest

pytest.importorskip("wordllama")
pytest.importorskip("tokenizers")

from taiji.language.embed import WordLlamaEmbedder
from taiji.language.term_merges import TwoTokenizers
from taiji.language.token_vectors import (
    numbered,
    numbers_of_words,
    principal_axes,
    started_tokenizers,
    term_vectors,
    text_vectors,
)

TEXTS = [
    "Alpine Trail lamp",
    "warm  Desert Camel bag",
    "Alpine Trail tent for two",
    "Zürich lamp",
    "lamp",
    "Antidisestablishmentarianism",
    "a 中 piece",
]


@pytest.fixture(scope="module")
def embedder():
    return WordLlamaEmbedder()


@pytest.fixture(scope="module")
def found():
    return started_tokenizers(TEXTS, 20)


def test_pieces_are_the_embedder_s_tokens(found, embedder):
    for text in TEXTS[:-1]:
        tokens = embedder._tokenizer.encode(text.replace("  ", " "), add_special_tokens=False).tokens
        assert list(found[0].tokens(text).general) == tokens


def test_the_mean_of_a_text_s_tokens_is_the_embedder_s_vector_of_it(found, embedder):
    """Of words between blanks, which the embedder's own tokenizer splits alike."""
    texts = [text.replace("  ", " ") for text in TEXTS[:-1]]
    mine = text_vectors(found[0], found[1]["general"], texts)
    np.testing.assert_allclose(mine, embedder.encode(texts), atol=1e-6)
    punctuated = ["Binder, Round Ring (1 Inch), White"]
    tokenizers, start = started_tokenizers(punctuated, 0)
    cosine = text_vectors(tokenizers, start["general"], punctuated) @ embedder.encode(punctuated).T
    assert 0.98 < cosine.item() < 1.0 + 1e-6


def test_a_term_has_the_mean_of_its_pieces(found):
    tokenizers, start = found
    place = tokenizers.domain.index("▁Al_pine_▁Tra_il")
    pieces = [tokenizers.general.index(piece) for piece in ("▁Al", "pine", "▁Tra", "il")]
    terms = term_vectors(tokenizers, start["general"])
    np.testing.assert_allclose(terms[place], start["general"][pieces].mean(axis=0), atol=1e-6)
    assert terms.shape == (len(tokenizers.domain), 256) and not numbered(terms)[:2].any()


def test_a_character_that_is_no_token_has_the_mean_of_its_bytes(embedder):
    numbers = embedder._model["vocab"]
    assert "\U0001f9ff" not in numbers
    expected = embedder._matrix[[numbers[f"<0x{byte:02X}>"] for byte in "\U0001f9ff".encode()]].mean(axis=0)
    np.testing.assert_array_equal(embedder.piece_vectors(["\U0001f9ff"])[0], expected)


def test_the_span_map_of_an_embedder_s_pieces_covers_every_character_once(found):
    for text in [*TEXTS, "(un)known 中文 words-of it_", "\u2581"]:
        tokens = found[0].tokens(text)
        covered = [place for start, end in tokens.spans for place in range(start, end)]
        assert covered == [place for place, character in enumerate(text) if not character.isspace()]
        assert len(tokens.term_of) == len(tokens.general)
    assert (
        TwoTokenizers.learn(TEXTS, 5, 5).tokens("Alpine").general[0].islower()
    )  # merges of one's own read small letters


def test_axes_vary_by_one_along_the_first():
    x = np.array([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]])
    axes = principal_axes(x)
    assert axes.shape == (2, 3)
    np.testing.assert_allclose(((x @ axes.T) ** 2).mean(axis=0), [1.0, 0.25], atol=1e-6)


def test_words_that_stand_together_are_alike_whatever_the_embedder_says():
    """Texts count as often as they are given; words of one kind meet in some, words of two kinds in none."""
    texts = [*["Turbo Garage", "Garage Yoga", "Turbo Yoga"] * 5, *["Opera Cactus", "Cactus Drone", "Opera Drone"] * 5]
    tokenizers, start = started_tokenizers(texts, 0, context=2)
    words = ["Turbo", "Garage", "Yoga", "Opera", "Cactus", "Drone"]
    vectors = text_vectors(tokenizers, start["context"], words)
    kind = np.array([1, 1, 1, -1, -1, -1])
    assert ((vectors @ vectors.T > 0) == (np.outer(kind, kind) > 0)).all()
    assert start["context"].shape == (len(tokenizers.general), 2) and start["centre"].shape == (258,)
    said = text_vectors(tokenizers, start["context"], list(dict.fromkeys(texts)))
    along = ((said - start["centre"][256:]) / start["scale"][256:]) @ start["context_axes"][0]
    np.testing.assert_allclose(np.square(along).mean(), 1.0, rtol=1e-5)
    plain = started_tokenizers(texts, 0)[1]
    assert "context" not in plain and np.array_equal(plain["axes"], start["axes"])


def test_the_tokens_of_a_word_stand_together(found):
    words = numbers_of_words(found[0], ["Alpine lamp", "lamp", "Alpine lamp"])
    names = [[[found[0].general[number] for number in word] for word in text] for text in words]
    assert names == [[["▁Al", "pine"], ["▁lamp"]], [["▁lamp"]], [["▁Al", "pine"], ["▁lamp"]]]
