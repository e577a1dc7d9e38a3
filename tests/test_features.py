"""FeatureTable tells kinds and ids; FeatureEncoder learns from hot rows and insists on the columns of fit."""

from __future__ import annotations

import datetime
from ast import literal_eval
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold, cross_validate

from recsys import EASE, ContentKNN
from recsys._kinds import infer_kind
from recsys.exceptions import DataWarning, InvalidInputError, InvalidTypeError
from recsys.features import EncodedFeatures, FeatureEncoder, FeatureTable, encode_features, fit_features
from recsys.persistence import read_directory, write_directory
from recsys.vocabulary import Vocabulary

EXAMPLES: dict[str, list[Any]] = {
    "numeric": [1.0, 2.0, 3.0],
    "categorical": ["a", "b", "c"],
    "multi_hot": [["a"], ["a", "b"], ["c"]],
    "text": ["toy story", "old men", "heat"],
    "vector": [[1.0, 2.0], [0.0, 0.0], [3.0, 1.0]],
}


# Each column is named by its kind.
KINDS = dict(zip(EXAMPLES, EXAMPLES, strict=True))


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(EXAMPLES, index=["u1", "u2", "u3"])


# FeatureTable: what is inferred.

INFERRED: list[tuple[str, Any, str]] = [
    ("ints", [1, 2], "numeric"),
    ("floats", [1.5, None], "numeric"),
    ("object numbers", pd.Series([1, None, 2.5], dtype=object), "numeric"),
    ("decimals", [Decimal("1.5"), None], "numeric"),
    ("Int64", pd.Series([1, None], dtype="Int64"), "numeric"),
    ("Float64", pd.Series([1, None], dtype="Float64"), "numeric"),
    ("all NaN", [np.nan, np.nan], "numeric"),
    ("datetimes", pd.to_datetime(["2020-01-01", "2021-01-01"]), "numeric"),
    ("datetimes with a zone", pd.to_datetime(["2020-01-01", "2021-01-01"]).tz_localize("Asia/Tokyo"), "numeric"),
    ("dates", [datetime.date(2020, 1, 1), None], "numeric"),
    ("timedeltas", pd.to_timedelta([1, 2], unit="D"), "numeric"),
    ("sparse", pd.arrays.SparseArray([0.0, 0.0, 1.0]), "numeric"),
    ("bool", [True, False], "categorical"),
    ("boolean", pd.Series([True, None], dtype="boolean"), "categorical"),
    ("object bool", [True, None], "categorical"),
    ("categories of numbers", pd.Categorical([1, 2]), "categorical"),
    ("intervals", pd.cut([1, 2, 3], 2), "categorical"),
    ("words", ["red", "blue"], "categorical"),
    ("string", pd.Series(["red", None], dtype="string"), "categorical"),
    ("mixed", [1, "red"], "categorical"),
    ("None", [None, None], "categorical"),
    ("repeated phrases", ["New York", "New York", "Los Angeles", "Los Angeles"], "categorical"),
    ("phrases", ["Toy Story", "Heat", "Grumpier Old Men"], "text"),
    ("separated", ["Drama|War", "Comedy", None], "multi_hot"),
    ("lists", [["a"], ["b", "c"], None], "multi_hot"),
    ("tuples", [("a", "b"), ("b", "c")], "multi_hot"),
    ("sets of numbers", [{1, 2}, {3, 4}], "multi_hot"),
    ("frozensets", [frozenset("ab")], "multi_hot"),
    ("arrays of text", [np.array(["a", "b"])], "multi_hot"),
    ("empty lists", [[], []], "multi_hot"),
    ("lists of labels that are ints", [[1, 2], [2, 3]], "multi_hot"),
    ("lists of ints, one unknown", [[1, None], [2, 3]], "multi_hot"),
    ("lists of floats", [[0.5, 1.0], [2.0, 3.0], None], "vector"),
    ("tuples of floats", [(0.5, 1.0), (2.0, 3.0)], "vector"),
    ("lists of ints that repeat", [[0, 1, 0], [1, 1, 0]], "vector"),
    ("arrays of numbers", [None, np.array([1, 2])], "vector"),
]


@pytest.mark.parametrize(("values", "kind"), [case[1:] for case in INFERRED], ids=[case[0] for case in INFERRED])
def test_kinds_are_inferred(values: Any, kind: str) -> None:
    column = pd.Series(values)
    assert infer_kind(column) == kind
    # Whatever is inferred can be encoded, and a missing value is an empty row.
    frame = pd.DataFrame({"x": column})
    encoded = FeatureEncoder.fit(frame, {"x": kind}, "|").transform(frame, "X")
    empty = [isinstance(value, (list, set)) and not len(value) for value in column]
    assert (encoded.present[:, 0] == column.notna().to_numpy() & ~np.array(empty)).all()


# FeatureTable: what is told.


def test_kinds_can_be_told_otherwise() -> None:
    frame = pd.DataFrame(
        {
            "key": [1, 2],
            "year": [1995, 1996],
            "zip": [94043, 10001],
            "title": ["Heat", "Casino"],
            "tags": ["a,b", "c"],
            "pair": [[1, 2], [3, 4]],
            "url": ["x", "y"],
        }
    )
    told = {"categorical": ["zip"], "text": ["title"], "multi_hot": ["tags"], "vector": ["pair"], "ignore": ["url"]}
    table = FeatureTable(frame, id="key", sep=",", **told)
    assert table.kinds == {
        "year": "numeric",
        "zip": "categorical",
        "title": "text",
        "tags": "multi_hot",
        "pair": "vector",
    }
    assert table.ignored == ("url",)
    assert repr(table) == (
        "FeatureTable(2 rows: year numeric, zip categorical, title text, tags multi_hot, pair vector)"
    )
    ids, columns = table.resolve("item_id", "item_features")
    assert ids.tolist() == [1, 2]
    assert list(columns) == ["year", "zip", "title", "tags", "pair"]


def test_summary_says_what_was_inferred() -> None:
    frame = pd.DataFrame(
        {"user_id": [1, 2, 3, 4], "age": [20, None, 30, 40], "job": ["x", "y", "x", None], "none": [None] * 4}
    )
    summary = FeatureTable(frame, categorical=["job"]).summary()
    assert summary.index.tolist() == ["user_id", "age", "job", "none"]
    assert summary.index.name == "column"
    assert summary["kind"].tolist() == ["id", "numeric", "categorical", "categorical"]
    assert summary["told"].tolist() == [False, False, True, False]
    assert summary["missing"].tolist() == [0.0, 0.25, 0.25, 1.0]
    assert summary["example"].tolist() == [1, 20.0, "x", None]
    assert len(FeatureTable(frame.set_index("user_id")[[]]).summary()) == 0
    assert FeatureTable(frame.head(0)).summary()["missing"].tolist() == [0.0] * 4


def test_a_table_does_not_change_with_its_frame() -> None:
    frame = pd.DataFrame({"user_id": [1, 2], "age": [20, 30]})
    table = FeatureTable(frame)
    frame.loc[0, "age"] = 99
    frame["more"] = 1
    assert table.frame["age"].tolist() == [20, 30]
    assert table.kinds == {"user_id": "numeric", "age": "numeric"}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"numeric": ["agee"]},
            InvalidInputError,
            "`numeric` names 'agee'; expected a column of `frame`. Did you mean 'age'?",
        ),
        ({"numeric": [3]}, InvalidInputError, "`numeric` names '3'; expected a column of `frame`"),
        ({"numeric": "age"}, InvalidTypeError, r"`numeric` is 'age'; expected a list of columns: pass \['age'\]"),
        ({"ignore": None}, InvalidTypeError, "`ignore` is None; expected a list of columns"),
        ({"id": "uid"}, InvalidInputError, "`id` names 'uid'; expected a column"),
        (
            {"numeric": ["age"], "text": ["age"]},
            InvalidInputError,
            "Column 'age' is named in `numeric` and in `text`; expected one: name it once",
        ),
        ({"id": "age", "ignore": ["age"]}, InvalidInputError, "Column 'age' is named in `ignore` and in `id`"),
        ({"sep": None}, InvalidTypeError, "`sep` is None; expected the text between the members"),
    ],
)
def test_what_is_told_is_checked(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FeatureTable(pd.DataFrame({"age": [1], "user": [2]}), **arguments)


def test_only_frames_with_distinct_columns_make_a_table() -> None:
    with pytest.raises(InvalidTypeError, match="`frame` is of type dict; expected a DataFrame or a FeatureTable"):
        FeatureTable({"age": [1]})  # type: ignore[arg-type]
    twice = pd.DataFrame([[1, 2]], columns=pd.Index([1, "1"], dtype=object))
    with pytest.raises(InvalidInputError, match="`frame` has more than one column named '1'; expected each once"):
        FeatureTable(twice)
    assert FeatureTable(pd.DataFrame([[1, 2]]), categorical=["1"]).kinds == {"0": "numeric", "1": "categorical"}


def test_a_table_looks_like_no_array() -> None:
    table = FeatureTable(pd.DataFrame({"age": [1]}))
    assert [name for name in ("__len__", "shape", "__array__", "__iter__", "__getitem__") if hasattr(table, name)] == []


# FeatureTable: whose features.


@pytest.mark.parametrize(
    "table",
    [
        FeatureTable(pd.DataFrame({"age": [20, 30]}, index=["b", "a"])),
        FeatureTable(pd.DataFrame({"age": [20, 30]}, index=pd.Index(["b", "a"], name="user_id"))),
        FeatureTable(pd.DataFrame({"age": [20, 30], "user_id": ["b", "a"]})),
        FeatureTable(pd.DataFrame({"age": [20, 30], "user_id": ["b", "a"]}, index=[7, 8])),
        FeatureTable(pd.DataFrame({"age": [20, 30], "key": ["b", "a"]}), id="key"),
    ],
    ids=["index", "named index", "column", "column over index", "told"],
)
def test_ids_come_from_the_column_or_the_index(table: FeatureTable) -> None:
    ids, columns = table.resolve("user_id", "user_features")
    assert ids.tolist() == ["b", "a"]
    assert columns["age"].tolist() == [20, 30]
    assert list(columns) == ["age"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            pd.DataFrame({"age": [20, 30]}),
            "`user_features` has no column 'user_id' and its index only numbers the rows; expected the ids in a column",
        ),
        (
            pd.DataFrame({"user_id": ["a", "b", "a", "b"], "age": 1}),
            "`user_features` has more than one row for 2 ids: 'a', 'b'; expected one row an id: drop or merge them",
        ),
        (pd.DataFrame({"user_id": ["a", None], "age": 1}), r"`user_features` has 1 null ids \(at positions 1\)"),
        (pd.DataFrame({"age": [1]}, index=pd.Index([[1]])), "`user_features` holds ids that cannot be hashed"),
    ],
)
def test_rows_without_an_id_of_their_own_are_refused(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        FeatureTable(frame).resolve("user_id", "user_features")


# FeatureEncoder and what it makes.


def test_fields_cut_the_matrix_without_gaps(table: pd.DataFrame) -> None:
    encoder = FeatureEncoder.fit(table, KINDS, "|")
    encoded = encoder.transform(table[["vector", "text", "multi_hot", "categorical", "numeric"]], "X")
    assert [(field.name, field.kind) for field in encoder.fields] == [(name, name) for name in EXAMPLES]
    assert encoder.fields[0].start == 0
    assert [field.stop for field in encoder.fields[:-1]] == [field.start for field in encoder.fields[1:]]
    assert encoder.fields[-1].stop == encoded.n_columns == 3 + 3 + 3 + 5 + 2
    for field in encoded.fields:
        alone = FeatureEncoder.fit(table[[field.name]], {field.name: field.kind}, "|").transform(
            table[[field.name]], "X"
        )
        assert encoded.block(field).toarray().tolist() == alone.matrix.toarray().tolist()
    assert encoded.matrix.has_sorted_indices


def test_taking_and_stacking_rows(table: pd.DataFrame) -> None:
    encoded = FeatureEncoder.fit(table, KINDS, "|").transform(table, "X")
    dense = encoded.matrix.toarray()
    taken = encoded.take([2, -1, 0, 2])
    assert taken.matrix.toarray().tolist() == [
        dense[2].tolist(),
        [0.0] * dense.shape[1],
        dense[0].tolist(),
        dense[2].tolist(),
    ]
    assert taken.present.tolist() == [[True] * 5, [False] * 5, [True] * 5, [True] * 5]
    assert encoded.take(np.array([False, True, True])).matrix.toarray().tolist() == dense[1:].tolist()
    assert encoded.take([]).matrix.shape == (0, dense.shape[1])
    stacked = encoded.stack(EncodedFeatures.empty(2, encoded.fields))
    assert len(stacked) == 5
    assert stacked.matrix.toarray()[:3].tolist() == dense.tolist()
    assert stacked.present.sum() == 15
    assert EncodedFeatures.empty(3).present.shape == (3, 0)


def test_columns_must_be_those_of_fit(table: pd.DataFrame) -> None:
    encoder = FeatureEncoder.fit(table, {"numeric": "numeric", "text": "text"}, "|", ignored=["vector"])
    wrong = table[["text", "multi_hot"]]
    message = (
        "`user_features` lacks 'numeric' and has the unknown 'multi_hot'; expected the feature columns of fit: "
        "numeric, text. Add what is missing .None where unknown. and drop the rest"
    )
    with pytest.raises(InvalidInputError, match=message):
        encoder.transform(wrong, "user_features")
    with pytest.raises(InvalidInputError, match="`user_features` lacks 'numeric'; expected"):
        encoder.transform(table[["text"]], "user_features")
    with pytest.raises(InvalidInputError, match="`user_features` has the unknown 'multi_hot'; expected"):
        encoder.transform(table[["numeric", "text", "multi_hot"]], "user_features")
    with pytest.raises(InvalidInputError, match="`context` has more than one column named 'text'"):
        encoder.transform(table[["numeric", "text", "text"]], "context")
    # A column that was ignored may come again.
    assert len(encoder.transform(table[["numeric", "text", "vector"]], "user_features")) == 3


def test_columns_with_numbers_for_names() -> None:
    frame = pd.DataFrame({2: [1.0, 2.0], 3: ["a", "b"]})
    encoder = FeatureEncoder.fit(FeatureTable(frame).frame, FeatureTable(frame).kinds, "|")
    assert encoder.transform(frame, "X").matrix.toarray().tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_an_encoder_survives_being_stored(table: pd.DataFrame, tmp_path: Path) -> None:
    encoder = FeatureEncoder.fit(table, KINDS, "|", ignored=["more"])
    encoded = encoder.transform(table, "X")
    write_directory(tmp_path / "saved", {"encoder": encoder, "encoded": encoded}, {})
    state, _ = read_directory(tmp_path / "saved")
    again = state["encoder"].transform(table.assign(more=1), "X")
    for other in (again, state["encoded"]):
        assert other.fields == encoded.fields
        assert (other.matrix != encoded.matrix).nnz == 0
        assert other.present.tolist() == encoded.present.tolist()


# Features of entities.


def test_encoders_learn_from_hot_rows_alone() -> None:
    frame = pd.DataFrame(
        {
            "year": [1990.0, 2000.0, 3000.0],
            "genre": ["x", "y", "z"],
            "tags": [["a"], ["b"], ["c"]],
            "title": ["toy story", "old men", "unheard word"],
            "vector": [[0.0, 0.0], [2.0, 0.0], [900.0, 900.0]],
        },
        index=["i1", "i2", "warm"],
    )
    hot = Vocabulary(["i2", "i1", "bare"])
    table = FeatureTable(frame, text=["title"])
    encoder, items, encoded = fit_features(table, "item_features", "item_id", hot, 10)
    assert items.ids.tolist() == ["i2", "i1", "bare", "warm"]
    assert encoder is not None
    year, genre, tags, title, vector = encoder.specs
    assert year["knots"].tolist() == [1990, 2000]
    assert genre["categories"].ids.tolist() == ["x", "y"]
    assert tags["categories"].ids.tolist() == ["a", "b"]
    assert title["terms"] == ["story", "toy", "men", "old"]
    assert vector["mean"].tolist() == [1, 0]
    assert vector["scale"] == 1
    assert encoded.present.tolist() == [[True] * 5, [True] * 5, [False] * 5, [True, False, False, False, True]]
    assert encoded.block(encoded.fields[0]).toarray().tolist() == [[0, 1], [1, 0], [0, 0], [0, 1]]
    assert encoded.block(encoded.fields[4]).toarray().tolist() == [[1, 0], [-1, 0], [0, 0], [899, 900]]


def test_no_features_are_no_fields() -> None:
    hot = Vocabulary(["a", "b"])
    encoder, vocabulary, encoded = fit_features(None, "user_features", "user_id", hot, 5)
    assert encoder is None
    assert vocabulary is hot
    assert encoded.matrix.shape == (2, 0)
    # A table of ids alone makes them known.
    only_ids = pd.DataFrame(index=["b", "c"])
    encoder, vocabulary, encoded = fit_features(only_ids, "user_features", "user_id", hot, 5)
    assert vocabulary.ids.tolist() == ["a", "b", "c"]
    assert encoded.matrix.shape == (3, 0)
    assert encode_features(only_ids, "user_features", "user_id", encoder)[1].matrix.shape == (2, 0)


def test_ids_keep_their_dtype_through_features() -> None:
    hot = Vocabulary(np.array([5, 3], dtype=np.int32))
    frame = pd.DataFrame({"user_id": [3.0, 9.0, 5.0], "age": [30, 90, 50]})
    _, users, encoded = fit_features(frame, "user_features", "user_id", hot, 9)
    assert users.ids.tolist() == [5, 3, 9]
    assert users.ids.dtype == np.int32
    assert encoded.matrix.toarray().tolist() == [[0, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (
            pd.DataFrame({"age": [1, 2]}, index=["5", "3"]),
            InvalidInputError,
            "`user_features` has no row for any id of `X` .its ids: '5', '3'; those of `X`: 5, 3.; expected features "
            "of these: check the ids. They are text .'5'., but the known ones are numbers .5.: to mean those",
        ),
        (
            pd.DataFrame({"age": []}, index=pd.Index([], dtype=int)),
            InvalidInputError,
            "`user_features` has no row for any id of `X` .its ids: none; those of `X`: 5, 3.",
        ),
        ({"age": [1]}, InvalidTypeError, "`user_features` is of type dict; expected a DataFrame or a FeatureTable"),
        (
            pd.DataFrame({"user_id": [5], "age": [np.inf]}),
            InvalidInputError,
            "Column 'age' of `user_features` holds infinite values",
        ),
        (pd.DataFrame({"user_id": [5, 5], "age": [1, 2]}), InvalidInputError, "more than one row for 1 ids: 5"),
    ],
)
def test_features_that_cannot_be_used_are_refused(features: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fit_features(features, "user_features", "user_id", Vocabulary([5, 3]), 9)


def test_features_that_fit_did_not_have_are_refused() -> None:
    message = (
        "`user_features` has features, but the model was fitted without; expected none: pass features to `fit` first"
    )
    with pytest.raises(InvalidInputError, match=message):
        encode_features(pd.DataFrame({"age": [1]}, index=["a"]), "user_features", "user_id", None)


def test_a_frame_that_model_selection_sliced_is_refused() -> None:
    X = pd.DataFrame({"user_id": [f"u{i % 3}" for i in range(12)], "item_id": [f"i{i % 6}" for i in range(12)]})
    items = pd.DataFrame({"item_id": [f"i{i}" for i in range(12)], "genre": list("ab" * 6)})
    folds = KFold(3)
    message = "`item_features` has exactly as many rows as `X` .8. and lacks [0-9] of its ids; .* pass FeatureTable"
    with pytest.raises(InvalidInputError, match=message):
        cross_validate(ContentKNN(), X, cv=folds, params={"item_features": items.iloc[::-1]}, error_score="raise")
    table = FeatureTable(items)
    assert cross_validate(ContentKNN(), X, cv=folds, params={"item_features": table})["test_score"].shape == (3,)


def test_a_whole_frame_as_long_as_x_is_welcome() -> None:
    X = pd.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "x"]})
    items = pd.DataFrame({"genre": ["g", "h", "g"]}, index=["x", "y", "warm"])
    model = EASE().fit(X, item_features=items)
    assert model.items_.ids.tolist() == ["x", "y", "warm"]


@pytest.mark.parametrize("dtype", ["string", "Int64", "boolean", object])
def test_a_column_without_a_single_value_has_no_columns(dtype: Any) -> None:
    frame = pd.DataFrame({"item_id": [1, 2], "empty": pd.Series([None, None], dtype=dtype)})
    kinds = FeatureTable(frame).kinds
    encoded = FeatureEncoder.fit(frame[["empty"]], {"empty": kinds["empty"]}, "|").transform(frame[["empty"]], "frame")
    assert encoded.matrix.nnz == 0
    assert not encoded.present.any()


def test_lists_that_were_written_as_text_are_told() -> None:
    X = pd.DataFrame({"user_id": [1, 1, 2], "item_id": ["a", "b", "a"]})
    films = pd.DataFrame({"genres": ["['Drama', 'War']", "[]", None]}, index=["a", "b", "c"])
    with pytest.warns(
        DataWarning, match=r"Columns 'genres' of `item_features` hold lists .* \"\['Drama', 'War'\]\""
    ) as told:
        ContentKNN().fit(X, item_features=films)
    assert [Path(warning.filename) for warning in told] == [Path(__file__)]
    # No word where the kind is told, the text is no list, or the lists are such.
    ContentKNN().fit(X, item_features=FeatureTable(films, categorical=["genres"]))
    ContentKNN().fit(X, item_features=films.assign(genres=["[live] concert", "opera", "opera"]))
    read = ContentKNN().fit(X, item_features=films.map(literal_eval, na_action="ignore"))
    assert [field.kind for field in read.item_features_.fields] == ["multi_hot"]
