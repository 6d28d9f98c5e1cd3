import numpy as np
import torch

from taiji.nn.field_embeddings import NumberEncoding

VALUES = np.array([[0, 10, 1, 5], [1, 20, -1, 5], [2, 30, 0.5, 6], [3, 40, -0.5, 6]], dtype=np.float32)


def encoding():
    made = NumberEncoding(4, 2)
    made.fit(VALUES)
    return made


def test_pieces_by_hand():
    found = encoding()(torch.tensor([[1.5, 40.0, 0.0, 5.25]]))
    assert found.shape == (1, 4 * 3)
    np.testing.assert_allclose(found[0, :4], [0, 15 / np.std(VALUES[:, 1]), 0, -0.5], rtol=1e-6)
    np.testing.assert_allclose(found[0, 4:8], [1, 0, 1, 1], atol=1e-6)


def test_the_encoding_of_some_columns_is_that_part_of_the_whole():
    made = encoding()
    rows = torch.from_numpy(VALUES) * 0.7
    for columns in ([3, 0], [1], [0, 2], [2, 3, 1]):
        part, places = made.for_columns(columns)
        assert part.out_width == len(places)
        assert torch.equal(part(rows[:, columns]), made(rows)[:, places])


def test_the_encoding_for_inference_is_the_same_to_the_last_bit():
    random = np.random.default_rng(3)
    made = NumberEncoding(5, 6)
    made.fit(random.normal(size=(500, 5)).astype(np.float32))
    part, _ = made.for_columns([4, 1])
    numbers = torch.from_numpy(random.normal(scale=4, size=(40, 5)).astype(np.float32))
    for encoding, given in ((made, numbers), (part, numbers[:, [4, 1]]), (NumberEncoding(0, 6), numbers[:, :0])):
        expected = encoding(given)
        with torch.inference_mode():
            assert torch.equal(encoding(given), expected)
    assert "sources" not in made.state_dict()
