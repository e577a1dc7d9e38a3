"""Writes a bundle: what `recsys.retrieval.bundle` serves."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd

from recsys._graphs import AskedUsers, Value
from recsys._records import Labels
from recsys._sparse import Csr
from recsys.features import EncodedFeatures, FeatureEncoder
from recsys.persistence import refuse_other_kind, write_directory
from recsys.retrieval._metadata import read_metadata
from recsys.retrieval._segments import Floats
from recsys.retrieval._snapshot import Segment
from recsys.retrieval._states import segment_to_state
from recsys.retrieval.bundle import CLASS
from recsys.vocabulary import Vocabulary

__all__ = ["encoder_state", "export_bundle"]


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

    def _user_graph(self, asked: AskedUsers) -> Value: ...


def export_bundle(model: Exported, path: Any, metadata: pd.DataFrame | None, include_users: bool) -> None:
    """Write a bundle, atomically; the arguments are those of `VectorRecommender.export`."""
    from recsys import __version__

    refuse_other_kind(path, lambda held: held == CLASS)
    asked = AskedUsers(include_users)
    graph = asked.graph.to_bytes(model._user_graph(asked))
    segment = Segment(np.ascontiguousarray(model.item_vectors()), read_metadata(metadata, model.items_.ids))
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
