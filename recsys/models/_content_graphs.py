"""`ContentEASE` as ONNX graphs: what a bundle of it computes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys._asked import AskedItems, AskedUsers, ItemTable, Parts
from recsys._graphs import Value
from recsys.features import Field
from recsys.models._dropout_ease import completed, completed_parts
from recsys.models._kernel_graph import kernel_ridge_graph
from recsys.models._kernel_ridge import KernelRidge
from recsys.vectors import VectorRecommender

__all__ = ["ClosedParts", "ContentGraphs", "DAMPING", "FORECAST", "KEEP_RATES"]

Floats = npt.NDArray[np.float32]

# The shares of a history that the regressions are solved for; users in between get a blend of two.
KEEP_RATES = np.array([0.01, 0.03, 0.1, 0.25, 0.5])
# Columns of popular items are long and would rule the ridge: they are damped by this power of the item's count, and a
# forecast of the count gives a smaller one back.
DAMPING, FORECAST = 0.25, 0.15


class ClosedParts(NamedTuple):
    """What the closed form tells of n users.

    Attributes
    ----------
    names : list of (source, field)
    of_fields, field_weights : Value of shape (n, n_names, d) and (n, n_names)
    of_history, history_weights : Value of shape (n, length, d) and (n, length)
        Entry by entry.
    """

    names: list[tuple[str, str]]
    of_fields: Value
    field_weights: Value
    of_history: Value
    history_weights: Value


class ContentGraphs(VectorRecommender):
    """Describes a fitted `ContentEASE`."""

    item_vectors_: Floats
    history_vectors_: Floats
    attribute_vectors_: Floats
    mean_history_: float
    mean_log_count_: float
    content_map_: KernelRidge | None
    content_scale_: float

    def _user_graph(self, asked: AskedUsers) -> Value:
        return self._completed_graph(asked, self._alone_graph(asked))

    def _alone_graph(self, asked: AskedUsers) -> Value:
        """What attributes alone say, (n, d)."""
        attributes = asked.features.with_constant(self.attribute_vectors_.shape[1] - 1)
        return attributes.product(self.attribute_vectors_[0])

    def _completed_graph(self, asked: AskedUsers, alone: Value) -> Value:
        """What `_users_of` computes."""
        history = self._history_table(asked)
        return completed(asked, alone, self._beside(), history, KEEP_RATES, self.mean_history_)

    def _beside(self) -> Floats:
        """What attributes say beside a history, by keep rate."""
        return self.attribute_vectors_[:1] - self.attribute_vectors_[1:]

    def _history_table(self, asked: AskedUsers) -> ItemTable:
        """What items of a history say, by keep rate."""
        by_item = self.history_vectors_.swapaxes(0, 1).reshape(-1, self.history_vectors_.shape[2])
        return asked.of_items("history_vectors", by_item, len(KEEP_RATES))

    def _item_graph(self, asked: AskedItems) -> dict[str, Value]:
        """What `_fill_from_content` gives items without interactions."""
        width, n_rates = self.item_vectors_.shape[1], len(KEEP_RATES)
        if self.content_map_ is None:
            return {"vectors": asked.nothing(width), "history_vectors": asked.nothing(width * n_rates)}
        predicted = kernel_ridge_graph(self.content_map_, asked)
        logs = predicted.columns(width, width + 1) * FORECAST + DAMPING * self.mean_log_count_
        vectors = predicted.columns(0, width) * asked.graph.apply("Exp", logs) * self.content_scale_
        return {"vectors": vectors, "history_vectors": predicted.columns(width + 1, None)}

    def _user_parts(self, asked: AskedUsers) -> Parts:
        parts = Parts(asked.graph)
        closed = self._closed_parts(asked, asked.history.lengths * 0.0 + 1.0, 1.0)
        parts.add(closed.names, closed.of_fields, closed.field_weights)
        parts.add([], closed.of_history, closed.history_weights)
        return parts

    def _closed_parts(self, asked: AskedUsers, share: Value, weight: float) -> ClosedParts:
        """What `_explain_against` tells, of which the `share`, (n, 1), is heeded; all of it times `weight`."""
        n_attributes = self.attribute_vectors_.shape[1]
        fields = [*self.user_features_.fields, Field("average user", "numeric", n_attributes - 1, n_attributes)]
        attributes = asked.features.with_constant(n_attributes - 1)
        alone, present = attributes.by_field(self.attribute_vectors_[0], fields), attributes.present(fields)
        history = self._history_table(asked)
        told, heard = completed_parts(asked, alone, fields, self._beside(), history, KEEP_RATES, self.mean_history_)
        share = share * weight
        return ClosedParts(
            [*(("user", field.name) for field in fields[:-1]), ("prior", fields[-1].name)],
            told * share.expand(2),
            present * share,
            heard * share.expand(2),
            asked.history.is_entry * share,
        )
