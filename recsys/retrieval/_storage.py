"""A saved index: what stands in its directory, and the checks of what is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recsys import persistence
from recsys.exceptions import CorruptModelError, PersistenceError
from recsys.persistence import read_directory, read_manifest, refuse_other_kind, write_directory
from recsys.retrieval._labels import Labels
from recsys.retrieval._segments import Floats, faiss
from recsys.retrieval._snapshot import Snapshot
from recsys.retrieval._states import segment_from_state, segment_to_state

__all__ = ["read", "write"]

_CLASS = "ItemIndex"
_PARAMETERS = {"metric", "kind", "recall_target", "compression"}


def write(path: Any, parameters: dict[str, Any], labels: Labels, snapshot: Snapshot, queries: Floats | None) -> None:
    """Write an index, atomically."""
    refuse_other_kind(path, lambda held: held == _CLASS)
    state = {
        "labels": labels.base,
        "joined": labels.joined,
        "base": segment_to_state(snapshot.base),
        "live": snapshot.live,
        "delta": segment_to_state(snapshot.delta),
        "codes": snapshot.codes,
        "queries": queries,
    }
    header = {"class": _CLASS, "faiss_version": faiss().__version__, "parameters": parameters}
    write_directory(path, state, header)


def read(path: Any) -> tuple[dict[str, Any], Labels, Snapshot, Floats | None]:
    """Read what `write` wrote: parameters, labels, snapshot, queries; large arrays stay in their file."""
    # Before the rest is read, and of what was read: a save may come between.
    _refuse_other_class(read_manifest(path), path)
    state, manifest = read_directory(path, persistence.MAPPED_FROM)
    _refuse_other_class(manifest, path)
    version = manifest.get("faiss_version")
    try:
        base, delta = (segment_from_state(state[name]) for name in ("base", "delta"))
        snapshot = Snapshot(base, state["live"], delta, state["codes"])
        labels = Labels(state["labels"], snapshot.is_taken, state["joined"])
        _check(snapshot, labels, manifest["parameters"])
    except RuntimeError as error:
        raise CorruptModelError(
            f"FAISS {faiss().__version__} cannot read the index in {Path(path)}, which FAISS {version} wrote: {error}"
        ) from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CorruptModelError(
            f"The files in {Path(path)} match their checksums but are no index ({type(error).__name__}: {error}); "
            f"expected what `save` wrote."
        ) from error
    return manifest["parameters"], labels, snapshot, state["queries"]


def _check(snapshot: Snapshot, labels: Labels, parameters: dict[str, Any]) -> None:
    """What would lead a search astray: parts that do not belong together."""
    codes, n_base = snapshot.codes, len(snapshot.base.vectors)
    new = codes[snapshot.n_replaced :]
    fits = (
        parameters.keys() == _PARAMETERS
        and snapshot.live.shape == (n_base,) == (len(labels.base),)
        and codes.shape == (len(snapshot.delta.vectors),)
        and snapshot.delta.vectors.shape[1] == snapshot.base.vectors.shape[1]
        and bool((np.diff(codes) > 0).all() and (codes >= 0).all())
        and bool((new == n_base + np.arange(len(labels.joined))).all())
        and not snapshot.live[codes[: snapshot.n_replaced]].any()
    )
    if not fits:
        raise ValueError("segments and labels that do not fit each other")


def _refuse_other_class(manifest: dict[str, Any], path: Any) -> None:
    if manifest.get("class") != _CLASS:
        raise PersistenceError(
            f"{Path(path)} holds a saved {manifest.get('class')}; expected an ItemIndex: load a model with "
            f"`recsys.load`, and index it with `ItemIndex.from_model`."
        )
