"""How far a user's scores spread, and what puts scores on one scale; by NumPy, and as a graph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys._graphs import Value

__all__ = ["covariance", "rescaling", "rescaling_graph", "spread_graph", "spread_of"]

Floats = npt.NDArray[np.float32]


def covariance(vectors: Floats) -> Floats:
    """Of the dimensions of vectors."""
    centred = vectors - vectors.mean(0)
    return np.asarray(centred.T @ centred / max(len(vectors), 1), dtype=np.float32)


def spread_of(users: Floats, covariance: Floats) -> Floats:
    """The standard deviation of a user's scores over the hot items, (n, 1)."""
    spread: Floats = np.sqrt(np.maximum(np.einsum("nd,nd->n", users @ covariance, users), 0))[:, None]
    return spread


def spread_graph(users: Value, covariance: Floats) -> Value:
    """What `spread_of` computes, as a graph."""
    return users.graph.apply("Sqrt", (users @ covariance * users).sum(1).at_least(0.0))


def rescaling_graph(spread: Value, wanted: Value) -> Value:
    """What `rescaling` computes, as a graph."""
    known = spread.exceeds(0.0) * wanted.exceeds(0.0)
    return spread.graph.where(known, wanted / spread.graph.where(known, spread, 1.0), 1.0)


def rescaling(spread: Floats, wanted: Floats) -> Floats:
    """What scores of one spread are multiplied with to have another; 1 where either is nothing."""
    known = (spread > 0) & (wanted > 0)
    return np.where(known, wanted / np.where(known, spread, 1), 1).astype(np.float32)
