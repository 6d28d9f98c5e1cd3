"""Real ONNX files as a score, written the way exporters write them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import TaijiError
from taiji.models.ranking.external import open_ranker
from taiji.models.ranking.onnx_ranker import OnnxRanker

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, types = onnx.helper, onnx.TensorProto
USERS, ITEMS, AS_OFS = np.array([3, 0, 59]), np.array([7, 79, 7]), np.array([1_577_836_800_000_000, 5, 6])
POSITIVE = 1 / (1 + np.exp(-0.75))
"""What the classifier gives to pairs of different ids, which all of these are: the logistic function of its
intercept."""


def write(path: Path, nodes: Sequence[Any], outputs: Sequence[Any], kind: int = types.STRING) -> Path:
    """Write a graph of ``user_id`` and ``item_id`` whose tensor ``x`` (N, 1) is 1 for equal ids."""
    inputs = [helper.make_tensor_value_info(name, kind, ["n"]) for name in ("user_id", "item_id")]
    axis = helper.make_tensor("axis", types.INT64, [1], [1])
    first = [
        helper.make_node("Equal", ["user_id", "item_id"], ["same"]),
        helper.make_node("Cast", ["same"], ["flat"], to=types.FLOAT),
        helper.make_node("Unsqueeze", ["flat", "axis"], ["x"]),
    ]
    graph = helper.make_graph([*first, *nodes], "pairs", inputs, list(outputs), [axis])
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def classifier(
    path: Path,
    *,
    zipmap: bool,
    names: tuple[str, str] = ("output_label", "output_probability"),
    classes: tuple[int, ...] = (0, 1),
    post: str = "LOGISTIC",
) -> Path:
    """A logistic classifier with its label first, as skl2onnx and onnxmltools export it, with and without
    ``zipmap``."""
    several, label, given = len(classes) > 2, names[0], names[1]
    sign = [-1.0, 1.0, 0.0][: len(classes)]
    raw = "probabilities" if zipmap else given
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            [label, raw],
            domain="ai.onnx.ml",
            coefficients=sign,
            intercepts=[0.75 * value for value in sign],
            classlabels_ints=list(classes),
            multi_class=int(several),
            post_transform="SOFTMAX" if several else post,
        )
    ]
    outputs = [helper.make_tensor_value_info(label, types.INT64, ["n"])]
    if zipmap:
        nodes.append(helper.make_node("ZipMap", [raw], [given], domain="ai.onnx.ml", classlabels_int64s=list(classes)))
        maps = helper.make_map_type_proto(types.INT64, helper.make_tensor_type_proto(types.FLOAT, None))
        outputs.append(helper.make_value_info(given, helper.make_sequence_type_proto(maps)))
    else:
        outputs.append(helper.make_tensor_value_info(given, types.FLOAT, ["n", len(classes)]))
    return write(path, nodes, outputs)


def regressor(path: Path, name: str = "variable", kind: int = types.FLOAT, shift: float = 0.25, rank: int = 2) -> Path:
    """One output under any name, as LightGBM's, XGBoost's and torch's exports have it."""
    nodes = [
        helper.make_node("Constant", [], ["shift"], value=helper.make_tensor("v", types.FLOAT, [1, 1], [shift])),
        helper.make_node("Add", ["x", "shift"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["cast"], to=kind),
        helper.make_node("Squeeze" if rank == 1 else "Identity", ["cast", "axis"] if rank == 1 else ["cast"], [name]),
    ]
    return write(path, nodes, [helper.make_tensor_value_info(name, kind, ["n", 1][:rank])])


@pytest.mark.parametrize(
    "export",
    [
        lambda path: classifier(path, zipmap=True),
        lambda path: classifier(path, zipmap=False),
        lambda path: classifier(path, zipmap=True, names=("label", "probabilities_of")),
        lambda path: classifier(path, zipmap=False, names=("label", "probabilities")),
        lambda path: classifier(path, zipmap=True, classes=(-1, 1)),
        lambda path: classifier(path, zipmap=False, names=("score_label", "variable")),
    ],
    ids=["zipmap", "matrix", "lightgbm zipmap", "xgboost matrix", "classes -1 and 1", "matrix of another name"],
)
def test_of_a_classifier_the_positive_class_is_the_score_and_never_the_label(
    shop: Any, tmp_path: Path, export: Callable[[Path], Path]
) -> None:
    ranker = open_ranker(str(export(tmp_path / "classifier.onnx")), shop)
    np.testing.assert_allclose(ranker.score_pairs(USERS, ITEMS, AS_OFS), POSITIVE, rtol=1e-6)
    assert ranker.score_pairs(USERS[:0], ITEMS[:0], AS_OFS[:0]).shape == (0,)
    np.testing.assert_allclose(ranker.score_pairs(USERS[:2], ITEMS[:2], AS_OFS[:2]), POSITIVE, rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("name", ["variable", "score", "ctcvr", "42"])
def test_the_only_float_output_is_the_score_under_any_name(shop: Any, tmp_path: Path, name: str, rank: int) -> None:
    ranker = OnnxRanker(shop, regressor(tmp_path / "one.onnx", name, rank=rank))
    assert ranker.score_pairs(USERS, ITEMS, AS_OFS).tolist() == [0.25, 0.25, 0.25]


@pytest.mark.parametrize(
    ("export", "found"),
    [
        (lambda path: regressor(path, "label", types.INT64), r"label: tensor\(int64\)"),
        (lambda path: regressor(path, "score", types.INT64), r"score: tensor\(int64\)"),
        (lambda path: regressor(path, "score", types.BOOL), r"score: tensor\(bool\)"),
        (
            lambda path: classifier(path, zipmap=False, classes=(0, 1, 2)),
            r"output_probability: tensor\(float\) \['n', 3\]",
        ),
    ],
    ids=["label alone", "score of integers", "score of booleans", "three classes"],
)
def test_an_output_that_is_no_score_is_refused_with_its_name_and_shape(
    shop: Any, tmp_path: Path, export: Callable[[Path], Path], found: str
) -> None:
    with pytest.raises(TaijiError, match=found):
        OnnxRanker(shop, export(tmp_path / "none.onnx"))


def test_two_outputs_that_may_be_the_score_are_refused_unless_one_is_named(shop: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in ("click", "order")]
    several = [helper.make_tensor_value_info(name, types.FLOAT, ["n", 1]) for name in ("click", "order")]
    with pytest.raises(TaijiError, match=r"click: tensor\(float\) \['n', 1\]; order: tensor\(float\) \['n', 1\]"):
        OnnxRanker(shop, write(tmp_path / "two.onnx", nodes, several))
    named = (
        [helper.make_node("Identity", ["x"], ["score"])],
        [helper.make_tensor_value_info("score", types.FLOAT, ["n", 1])],
    )
    ranker = OnnxRanker(shop, write(tmp_path / "named.onnx", nodes + named[0], several + named[1]))
    assert ranker.output.name == "score"


def test_three_classes_behind_a_map_are_refused(shop: Any, tmp_path: Path) -> None:
    ranker = OnnxRanker(shop, classifier(tmp_path / "three.onnx", zipmap=True, classes=(0, 1, 2)))
    with pytest.raises(TaijiError, match=r"classes \[0, 1, 2\]"):
        ranker.score_pairs(USERS, ITEMS, AS_OFS)


def test_two_columns_that_are_no_probabilities_are_refused(shop: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("Concat", ["x", "x"], ["scores"], axis=1)]
    path = write(tmp_path / "two.onnx", nodes, [helper.make_tensor_value_info("scores", types.FLOAT, ["n", 2])])
    with pytest.raises(TaijiError, match="sum to 1"):
        OnnxRanker(shop, path).score_pairs(USERS, ITEMS, AS_OFS)


def test_values_outside_zero_to_one_are_said(shop: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TaijiError, match="probabilities from 0 to 1"):
        OnnxRanker(shop, regressor(tmp_path / "p.onnx", "probability", shift=7.0)).score_pairs(USERS, ITEMS, AS_OFS)
    ranker = OnnxRanker(shop, regressor(tmp_path / "s.onnx", "score", shift=-7.0))
    with caplog.at_level(logging.WARNING, logger="taiji"):
        assert ranker.score_pairs(USERS, ITEMS, AS_OFS).tolist() == [-7, -7, -7]
        ranker.score_pairs(USERS, ITEMS, AS_OFS)
    assert [record.getMessage().count("not a probability") for record in caplog.records] == [1]


def test_files_that_do_not_fit_are_explained(shop: Any, tmp_path: Path) -> None:
    node, output = (
        helper.make_node("Identity", ["x"], ["score"]),
        helper.make_tensor_value_info("score", types.FLOAT, ["n", 1]),
    )
    path = write(tmp_path / "ints.onnx", [node], [output], types.INT64)
    with pytest.raises(TaijiError, match="do not have the type"):
        OnnxRanker(shop, path).score_pairs(USERS, ITEMS, AS_OFS)
    path = write(tmp_path / "small.onnx", [node], [output], types.INT32)
    wide = replace(
        shop,
        items=shop.items.with_columns(item_id=pl.int_range(pl.len()) + 2**32),
        users=shop.users.with_columns(user_id=pl.int_range(pl.len())),
    )
    with pytest.raises(TaijiError, match="do not have the type") as error:
        OnnxRanker(wide, path).score_pairs(USERS, ITEMS, AS_OFS)
    assert str(2**32 + 7) in str(error.value), "not cut to 32 bits"
    (tmp_path / "broken.onnx").write_bytes(b"no")
    with pytest.raises(TaijiError, match="Could not open"):
        OnnxRanker(shop, tmp_path / "broken.onnx")
