"""Writes a bundle: what `recsys.retrieval.bundle` serves."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd

from recsys._asked import AskedItems, AskedUsers, Parts
from recsys._graphs import Graph, Tables, Value
from recsys._records import Labels
from recsys._sparse import Csr
from recsys.exceptions import InvalidTypeError
from recsys.features import EncodedFeatures, FeatureEncoder, Field
from recsys.persistence import refuse_other_kind, write_directory
from recsys.retrieval._arguments import check_choice, read_target
from recsys.retrieval._changing import build_segment
from recsys.retrieval._metadata import read_metadata
from recsys.retrieval._segments import Floats
from recsys.retrieval._states import segment_to_state
from recsys.retrieval._told import SHOWN
from recsys.retrieval.bundle import CLASS
from recsys.vocabulary import Vocabulary

__all__ = ["KINDS", "encoder_state", "export_bundle"]

KINDS = ("exact", "auto", "ivf", "hnsw")
# Users whose vectors tell how far an approximate search must look.
_JUDGES = 256


class Exported(Protocol):
    """What is asked of a model: a fitted `VectorRecommender` has it."""

    users_: Vocabulary
    items_: Vocabulary
    history_: Csr
    user_features_: EncodedFeatures
    user_encoder_: FeatureEncoder | None
    context_encoder_: FeatureEncoder | None
    item_features_: EncodedFeatures
    item_encoder_: FeatureEncoder | None
    min_rating: float | None

    @property
    def _uses_user_features(self) -> bool: ...

    def item_vectors(self) -> Floats:
        """Vectors of the catalogue, the prior included."""

    def user_vectors(self, users: Any) -> Floats:
        """Vectors of users."""

    def _item_embeddings(self) -> Floats: ...

    def _user_graph(self, asked: AskedUsers) -> Value: ...

    def _item_graph(self, asked: AskedItems) -> dict[str, Value]: ...

    def _user_parts(self, asked: AskedUsers) -> Parts: ...

    def _item_parts_graph(self, asked: AskedItems) -> Parts | None: ...


def export_bundle(
    model: Exported, path: Any, metadata: pd.DataFrame | None, include_users: bool, kind: str, recall_target: float
) -> None:
    """Write a bundle, atomically; the arguments are those of `VectorRecommender.export`."""
    from recsys import __version__

    check_choice("kind", kind, KINDS)
    recall_target = read_target(recall_target)
    if not isinstance(include_users, (bool, np.bool_)):
        raise InvalidTypeError(f"`include_users` is {include_users!r}; expected True or False.")
    refuse_other_kind(path, lambda held: held == CLASS)
    tables = Tables()
    graphs, item_tables = _graphs(model, include_users, tables)
    table, vectors = read_metadata(metadata, model.items_.ids), np.ascontiguousarray(model.item_vectors())
    queries = None if kind == "exact" else model.user_vectors(_some_users(model))
    segment = build_segment(vectors, table, kind, recall_target, None, queries)
    state = {
        "items": _labels(model.items_),
        "index": segment_to_state(segment),
        "graphs": graphs,
        "tables": tables.arrays,
        "item_tables": item_tables,
        "n_similar": model._item_embeddings().shape[1],
        "user_features": _encoder(model.user_encoder_, model.user_features_),
        "item_features": _encoder(model.item_encoder_, model.item_features_),
        "context": _encoder(model.context_encoder_, None),
        "min_rating": model.min_rating,
        "uses_user_features": bool(model._uses_user_features),
        "users": _users(model) if include_users else None,
        # What is explained by the features of items needs those.
        "items_told": _csr(model.item_features_.matrix) if "item_parts" in graphs else None,
        # Items that joined or left since.
        "changed": None,
    }
    write_directory(path, state, {"class": CLASS, "recsys_version": __version__, "model": type(model).__name__})


def _graphs(model: Exported, with_known: bool, tables: Tables) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """The graphs of a bundle by name, and the tables of items that those of users look at."""
    found: dict[str, Any] = {}
    # Without what few requests ask for, the others are answered faster.
    for name, with_joined in (("users", False), ("users_of_joined", True)):
        users = AskedUsers(with_known, with_joined, tables)
        found[name] = _stored(users.graph, {"user_vectors": model._user_graph(users)})
    joining = AskedItems(tables)
    found["items"] = _stored(joining.graph, model._item_graph(joining))
    of_users, of_items = (
        model._user_parts(AskedUsers(with_known, tables=tables)),
        model._item_parts_graph(AskedItems(tables)),
    )
    for name, part in (("user_parts", of_users), ("item_parts", of_items)):
        if part is not None and part.names:
            found[name] = {**_stored(part.graph, part.outputs()), "names": part.names}
    return found, users.item_tables


def _stored(graph: Graph, outputs: dict[str, Value]) -> dict[str, Any]:
    stored = np.frombuffer(graph.to_bytes(outputs), dtype=np.uint8)
    return {"graph": stored, "tables": list(graph.tables)}


def _some_users(model: Exported) -> pd.Index:
    """Users who have a history, by whom it is judged what a search finds."""
    hot = np.flatnonzero(np.diff(model.history_.indptr))
    return model.users_.ids[hot[:: -(-len(hot) // _JUDGES)]]


def _users(model: Exported) -> dict[str, Any]:
    history, features = model.history_, model.user_features_.matrix
    return {"labels": _labels(model.users_), "history": _csr(history), "features": _csr(features)}


def _csr(matrix: Csr) -> dict[str, Any]:
    return {"indptr": matrix.indptr, "indices": matrix.indices, "data": matrix.data.astype(np.float32, copy=False)}


def _labels(vocabulary: Vocabulary) -> dict[str, Any]:
    state = vocabulary.to_state()
    # What cannot be read is not to be written.
    Labels(state)
    return state


def _encoder(encoder: FeatureEncoder | None, encoded: EncodedFeatures | None) -> dict[str, Any] | None:
    return None if encoder is None else encoder_state(encoder, encoded)


def encoder_state(encoder: FeatureEncoder, encoded: EncodedFeatures | None = None) -> dict[str, Any]:
    """What a `RecordEncoder` is made of; `encoded` tells how often categories are there."""
    state = encoder.to_state()
    specs = [_spec(spec, field, encoded) for spec, field in zip(state["specs"], encoder.fields, strict=True)]
    return {**state, "specs": specs}


def _spec(spec: dict[str, Any], field: Field, encoded: EncodedFeatures | None) -> dict[str, Any]:
    if "categories" not in spec:
        return spec
    width = field.stop - field.start
    counts = np.zeros(width) if encoded is None else np.bincount(encoded.block(field).indices, minlength=width)
    frequent = np.argsort(-counts, kind="stable")[:SHOWN]
    return {**spec, "categories": _labels(spec["categories"]), "frequent": frequent}
