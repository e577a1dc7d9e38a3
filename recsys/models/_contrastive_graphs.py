"""`ContrastiveRecommender` as ONNX graphs: what a bundle of it computes."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from recsys._asked import AskedItems, AskedUsers, Parts
from recsys._graphs import Value
from recsys._sparse import positives
from recsys.features import Field
from recsys.models._spreads import rescaling_graph, spread_graph
from recsys.models._tower_part import READOUT_EVIDENCE, TowerPart
from recsys.models._user_memory import UserMemory
from recsys.nn.residual import ResidualTower
from recsys.nn.towers import ITEM_NORM

__all__ = ["ContrastiveGraphs", "HALF_EVIDENCE"]

Fields: TypeAlias = tuple[Field, ...]
Floats = npt.NDArray[np.float32]

# A history of this part of the mean length is half of the evidence there can be.
HALF_EVIDENCE = 0.25


class _Known(NamedTuple):
    """What `_from_evidence` and `_told` find of n users before the towers.

    Attributes
    ----------
    closed, remembered, corrected : Value of shape (n, d)
        All in all, what the memory tells, and what the network adds.
    share, correction : Value of shape (n, 1)
        That of the memory, and the weight of what the network adds.
    """

    closed: Value
    remembered: Value
    corrected: Value
    share: Value
    correction: Value


class ContrastiveGraphs(TowerPart):
    """Describes a fitted `ContrastiveRecommender`."""

    memory_: UserMemory | None
    residual_: ResidualTower | None
    fitted_weights_: dict[str, float]
    item_covariance_: Floats
    tower_covariance_: Floats
    tower_history_: Floats
    warm_shift_: float

    def _user_graph(self, asked: AskedUsers) -> Value:
        """What `_user_vectors` computes."""
        known, share = self._known_graph(asked), self._share_of_towers()
        closed = known.closed * (1 - share)
        if self.towers_ is None:
            return closed
        towers = self._towers_graph(asked)[0]
        with_bias, scale = self._scaled_graph(towers, known.closed)
        return asked.graph.concat([closed, with_bias * scale * share], 1)

    def _share_of_towers(self) -> float:
        return float(np.float32(self.fitted_weights_["towers"]))

    def _known_graph(self, asked: AskedUsers) -> _Known:
        """The steps of `_from_evidence`, and then the correction."""
        graph, lengths = asked.graph, asked.history.lengths
        room = 1.0 - lengths / (lengths + HALF_EVIDENCE * self.mean_history_)
        room, has_history = room * room, lengths.exceeds(0.0)
        alone = self._alone_graph(asked)
        closed = self._completed_graph(asked, alone)
        remembered, corrected = alone * 0.0, alone * 0.0
        share, correction = lengths * 0.0, lengths * 0.0
        if self.memory_ is not None:
            remembered = self.memory_.graph(asked)
            spread, of_others = (spread_graph(vectors, self.item_covariance_) for vectors in (closed, remembered))
            remembered = remembered * rescaling_graph(of_others, spread)
            says = graph.apply("Abs", remembered).max(1).exceeds(0.0)
            share = has_history * says * room * self.fitted_weights_["memory"]
            closed = (1.0 - share) * closed + share * remembered
        if self.residual_ is not None:
            correction = room if self.context_encoder_ is not None else room * has_history
            corrected = correction * self.residual_.graph(asked, *self._fields_of_users())
            closed = closed + corrected
        return _Known(closed, remembered, corrected, share, correction)

    def _fields_of_users(self) -> tuple[Fields, Fields]:
        """Attributes, and context."""
        return self.user_features_.fields, () if self.context_encoder_ is None else self.context_encoder_.fields

    def _towers_graph(self, asked: AskedUsers) -> tuple[Value, Value, Value]:
        """What `_tower_users` computes."""
        assert self.towers_ is not None
        counts = np.diff(positives(self.history_).indptr).astype(np.float32)
        history = asked.of_items("tower_history", self.tower_history_)
        return self.towers_.users_graph(asked, *self._fields_of_users(), history, counts)

    def _scaled_graph(self, towers: Value, closed: Value) -> tuple[Value, Value]:
        """Vectors with a last dimension of 1, and what their scores are multiplied with."""
        graph = towers.graph
        with_bias = graph.concat([towers, (towers * 0.0).sum(1) + 1.0], 1)
        spreads = spread_graph(with_bias, self.tower_covariance_), spread_graph(closed, self.item_covariance_)
        return with_bias, rescaling_graph(*spreads)

    def _item_graph(self, asked: AskedItems) -> dict[str, Value]:
        """What `_items_appended` gives new items."""
        found = super()._item_graph(asked)
        if self.towers_ is None:
            return found
        vectors = asked.features.product(self.readout_) + self._warm_intercept()
        history = vectors.columns(0, self.tower_vectors_.shape[1] - 1) @ self.towers_.history_map.detach().numpy()
        return {**found, "vectors": asked.graph.concat([found["vectors"], vectors], 1), "tower_history": history}

    def _warm_intercept(self) -> Floats:
        """What the readout gives items without content."""
        intercept = self.readout_intercept_.copy()
        intercept[-1] += np.float32(self.warm_shift_)
        return intercept

    def _user_parts(self, asked: AskedUsers) -> Parts:
        """What `_explain_pairs` tells of users' fields; of the towers' inner product that is half."""
        graph, parts = asked.graph, Parts(asked.graph)
        known, share = self._known_graph(asked), self._share_of_towers()
        width, beyond = self.item_vectors_.shape[1], self.tower_vectors_.shape[1]
        closed = self._closed_parts(asked, 1.0 - known.share, 1 - share)
        parts.add(closed.names, closed.of_fields.widened(0, beyond), closed.field_weights)
        added = graph.concat([(known.share * known.remembered).expand(1), known.corrected.expand(1)], 1)
        weights = graph.concat([known.share, known.correction], 1) * (1 - share)
        names = [("user", "similar users"), ("user", "fields together")]
        parts.add(names, (added * (1 - share)).widened(0, beyond), weights)
        if self.towers_ is not None:
            towers, shares, values = self._towers_graph(asked)
            weighed = shares.expand(2) * values
            fused = weighed.sum(1).squeeze(1)
            # Squashing scales a vector as a whole, and its fields with it.
            lengths = [graph.apply("Sqrt", (each * each).sum(1)) for each in (towers, fused)]
            scale = self._scaled_graph(towers, known.closed)[1] * lengths[0] / lengths[1].at_least(1e-30)
            vectors = weighed * (scale * (share / 2)).expand(2)
            told = [field.name for fields in self._fields_of_users() for field in fields]
            of_towers = [("user", name) for name in ("id", *told, "history")]
            parts.add(of_towers, vectors.widened(width, 1), shares * share)
        parts.add([], closed.of_history.widened(0, beyond), closed.history_weights)
        return parts

    def _item_parts_graph(self, asked: AskedItems) -> Parts | None:
        """What `_explain_items` tells of items' fields: half of the towers' inner product, and the bias."""
        if self.towers_ is None:
            return None
        graph, fields, share = asked.graph, self.item_features_.fields, self._share_of_towers()
        d, width = len(self.readout_intercept_) - 1, self.item_vectors_.shape[1]
        bias = np.append(np.zeros(d), 1).astype(np.float32)
        halved = np.append(np.full(d, 0.5), 1).astype(np.float32)
        shares, values = self.towers_.items_graph(asked, fields, self.item_counts_)
        count = asked.of_exported(self.item_counts_[:, None])
        own = count / (count + READOUT_EVIDENCE)
        weighed = shares.expand(2) * values
        fused = weighed.sum(1).squeeze(1).columns(0, d)
        scale = ITEM_NORM / graph.apply("Sqrt", (fused * fused).sum(1) + 1.0) * (halved - bias) + bias
        vectors, weights = weighed * (scale * own).expand(1), shares * own
        if fields:
            content = asked.features.by_field(self.readout_ * halved, fields)
            of_id = (own * halved * 0.0).expand(1)
            vectors = vectors + graph.concat([of_id, content * (1.0 - own).expand(2)], 1)
            weights = weights + graph.concat([own * 0.0, asked.features.present(fields) * (1.0 - own)], 1)
        average = self.readout_intercept_ * halved + (1.0 - count.exceeds(0.0)) * (bias * np.float32(self.warm_shift_))
        parts = Parts(graph)
        names = [("item", name) for name in ("id", *(field.name for field in fields))]
        parts.add(names, vectors.widened(width, 0), weights * share)
        of_prior = ((1.0 - own) * average).expand(1).widened(width, 0)
        parts.add([("prior", "average item")], of_prior, (1.0 - own) * share)
        return parts
