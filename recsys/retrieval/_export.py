"""Writes a bundle: what `recsys.retrieval.bundle` serves."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd

from recsys._graphs import AskedUsers, Value
from recsys._records import Labels
from recsys._sparse import Csr
from recsys.exceptions import InvalidTypeError
from recsys.features import EncodedFeatures, FeatureEncoder
from recsys.persistence import refuse_other_kind, write_directory
from recsys.retrieval._arguments import check_choice, read_target
from recsys.retrieval._changing import build_segment
from recsys.retrieval._metadata import read_metadata
from recsys.retrieval._segments import Floats
from recsys.retrieval._states import segment_to_state
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
    min_rating: float | None

    @property
    def _uses_user_features(self) -> bool: ...

    def item_vectors(self) -> Floats:
        """Vectors of the catalogue, the prior included."""

    def user_vectors(self, users: Any) -> Floats:
        """Vectors of users."""

    def _user_graph(self, asked: AskedUsers) -> Value: ...


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
    asked = AskedUsers(include_users)
    graph = asked.graph.to_bytes(model._user_graph(asked))
    table, vectors = read_metadata(metadata, model.items_.ids), np.ascontiguousarray(model.item_vectors())
    queries = None if kind == "exact" else model.user_vectors(_some_users(model))
    segment = build_segment(vectors, table, kind, recall_target, None, queries)
    state = {
        "items": _labels(model.items_),
        "index": segment_to_state(segment),
        "graph": np.frombuffer(graph, dtype=np.uint8),
        "tables": asked.graph.tables,
        "features": None if model.user_encoder_ is None else encoder_state(model.user_encoder_),
        "context": None if model.context_encoder_ is None else encoder_state(model.context_encoder_),
        "min_rating": model.min_rating,
        "uses_user_features": bool(model._uses_user_features),
        "users": _users(model) if include_users else None,
    }
    write_directory(path, state, {"class": CLASS, "recsys_version": __version__, "model": type(model).__name__})


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


def encoder_state(encoder: FeatureEncoder) -> dict[str, Any]:
    """What a `RecordEncoder` is made of."""
    state = encoder.to_state()
    specs = [
        {**spec, "categories": _labels(spec["categories"])} if "categories" in spec else spec for spec in state["specs"]
    ]
    return {**state, "specs": specs}
