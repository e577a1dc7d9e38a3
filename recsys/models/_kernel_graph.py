"""What a `KernelRidge` predicts, as an ONNX graph of items."""

from __future__ import annotations

import functools
import operator

import numpy as np

from recsys._asked import AskedItems
from recsys._graphs import Value
from recsys.features import EncodedFeatures
from recsys.models._kernel_ridge import KernelRidge, field_rows, kernel_terms, root_of_knots

__all__ = ["kernel_ridge_graph"]


def kernel_ridge_graph(regression: KernelRidge, asked: AskedItems) -> Value:
    """What `predict` computes.

    Parameters
    ----------
    regression : KernelRidge
    asked : AskedItems

    Returns
    -------
    Value of shape (n_items, d)
    """
    landmarks, mixture = regression.landmarks, regression.mixture
    kernels, total = _FieldKernels(landmarks, asked), asked.nothing(len(landmarks))
    for weight, term in zip(mixture.weights.tolist(), kernel_terms(len(landmarks.fields)), strict=True):
        if weight:
            first, *others = (kernels[field] for field in term)
            total = total + functools.reduce(operator.mul, others, first * weight)
    return total @ regression.dual


class _FieldKernels:
    """The kernels of items with landmarks, field by field, as `Mixture.kernel` has them, in a graph."""

    def __init__(self, landmarks: EncodedFeatures, asked: AskedItems) -> None:
        self._fields, self._rows, self._asked = landmarks.fields, field_rows(landmarks), asked
        self._found: dict[int, Value] = {}
        self._values, self._pattern = (
            asked.dense(rows, landmarks.n_columns) for rows in (asked.features, asked.features.pattern)
        )

    def __getitem__(self, field: int) -> Value:
        if field not in self._found:
            self._found[field] = self._kernel(field)
        return self._found[field]

    def _kernel(self, at: int) -> Value:
        """Of one field, (n_items, n_landmarks)."""
        field, rows, graph = self._fields[at], self._rows[at], self._asked.graph
        if field.kind == "numeric":
            values = self._values.columns(field.start, field.stop)
            return values @ np.asarray((rows @ root_of_knots(rows.shape[1]).T).T, dtype=np.float32, order="C")
        if field.kind == "vector":
            values = self._values.columns(field.start, field.stop)
            lengths = graph.apply("Sqrt", (values * values).sum(1))
            return values / lengths.at_least(1e-12) @ np.ascontiguousarray(rows.toarray().T)
        # Ones, which are few: what the item has of those that a landmark has; the last column is of nobody.
        own = graph.concat([self._pattern.columns(field.start, field.stop), self._asked.nothing(1)], 1)
        counts = np.diff(rows.indptr)
        places = np.full((len(counts), max(1, int(counts.max(initial=0)))), rows.shape[1])
        places[np.arange(places.shape[1]) < counts[:, None]] = rows.indices
        return graph.take(own, places, axis=1).sum(2).squeeze(2)
