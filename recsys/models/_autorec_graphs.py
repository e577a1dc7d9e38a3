"""`AutoRec` as ONNX graphs: what a bundle of it computes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from recsys._asked import AskedItems, AskedUsers, History, Parts
from recsys._graphs import Value
from recsys._sparse import Csr, empty_csr, pattern, positives
from recsys.features import Field
from recsys.nn.autoencoder import Autoencoder
from recsys.vectors import VectorRecommender

__all__ = ["AutoRecGraphs", "FOLD_IN_L2", "NEAR"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# By item, codes are fixed when users are solved for: their regression needs this many times the weight decay.
FOLD_IN_L2 = 5.0
# Nearer to 0 tanh is the identity.
NEAR = 1e-3


class AutoRecGraphs(VectorRecommender):
    """Describes a fitted `AutoRec`."""

    network_: Autoencoder
    fitted_kind_: str
    fitted_l2_: float
    fitted_unobserved_weight_: float
    size_power_: float
    explicit_: bool
    columns_: Codes
    target_scale_: float
    item_vectors_: Floats
    readout_: dict[str, Floats]
    history_vectors_: Floats
    gram_: Floats

    def _targets(self, history: Csr) -> Csr:
        """What is to be predicted of positives: 1, or their weights, scaled to about that."""
        if not self.explicit_:
            return pattern(history)
        scaled = (history.data / self.target_scale_).astype(np.float32)
        return Csr((scaled, history.indices, history.indptr), shape=history.shape)

    def _targets_graph(self, asked: AskedUsers) -> History:
        """What `_targets` makes of histories."""
        return asked.history.times(1 / self.target_scale_) if self.explicit_ else asked.history.pattern

    def _user_graph(self, asked: AskedUsers) -> Value:
        """What `_user_vectors` computes: the codes of users, or `_solve`."""
        graph, targets = asked.graph, self._targets_graph(asked)
        if self.fitted_kind_ == "user":
            table = asked.of_items("history_vectors", self.history_vectors_)
            codes = self.network_.graph(targets, asked.features, table)
            return graph.concat([codes, targets.lengths * 0.0 + 1.0], 1)
        expected = asked.features.product(self.readout_["coefficients"]) + self.readout_["intercept"]
        size, l2 = self.item_vectors_.shape[1], FOLD_IN_L2 * self.fitted_l2_
        common = self.fitted_unobserved_weight_ * self.gram_.astype(np.float64) + l2 * np.eye(size)
        table = asked.of_items("item_vectors", self.item_vectors_)
        seen = targets.gather(table)
        products = ((seen * targets.is_entry.expand(2)).transpose(0, 2, 1) @ seen).as_type(np.float64)
        matrix = products * np.array(1 - self.fitted_unobserved_weight_) + common
        aim = targets.product(table) + expected * l2
        solved = graph.solve(matrix, aim.as_type(np.float64).expand(2), size).squeeze(2).as_type(np.float32)
        return graph.where(targets.lengths, solved, expected) * self.target_scale_

    def _item_graph(self, asked: AskedItems) -> dict[str, Value]:
        """What `_items_appended` gives new items."""
        graph = asked.graph
        if self.fitted_kind_ == "item":
            codes = self.network_.graph_without_history(asked.features)
            vectors = graph.concat([codes, asked.features.lengths * 0.0 + 1.0], 1)
            return {"vectors": vectors, "item_vectors": vectors}
        found = asked.features.product(self.readout_["coefficients"]) + self.readout_["intercept"]
        width, most = self.network_.sizes["factors"] + 1, float(np.log1p(len(self.users_)))
        logs = found.columns(2 * width - 1, None).at_least(-most).at_most(most)
        forecast = graph.apply("Exp", logs * self.size_power_) * self.target_scale_
        return {"vectors": found.columns(0, width) * forecast, "history_vectors": found.columns(width, 2 * width - 1)}

    def _user_parts(self, asked: AskedUsers) -> Parts:
        """What `_explain_pairs` tells of users; by item all is told of the item."""
        parts = Parts(asked.graph)
        if self.fitted_kind_ == "user":
            targets, table = self._targets_graph(asked), asked.of_items("history_vectors", self.history_vectors_)
            of_history, of_count = self.network_.history_graph(targets, table)
            self._add_parts(parts, asked, self.user_features_.fields, of_history, of_count)
        return parts

    def _item_parts_graph(self, asked: AskedItems) -> Parts | None:
        """What `_explain_pairs` tells of items; by user all is told of the user."""
        if self.fitted_kind_ == "user":
            return None
        targets = self._targets(Csr(positives(self.history_).T)[:, self.columns_])
        with torch.no_grad():
            nothing = empty_csr(len(self.items_), self.network_.sizes["attributes"])
            of_history, _, of_count = (part.numpy() for part in self.network_.parts(targets, nothing))
        parts = Parts(asked.graph)
        fields = self.item_features_.fields
        self._add_parts(parts, asked, fields, asked.of_exported(of_history), asked.of_exported(of_count))
        return parts

    def _add_parts(
        self,
        parts: Parts,
        asked: AskedUsers | AskedItems,
        fields: tuple[Field, ...],
        of_history: Value,
        of_count: Value,
    ) -> None:
        """A code is its pre-activation z times tanh(z) / z, unit by unit, and so are the parts that z is the sum of."""
        graph = asked.graph
        constant = of_count * 0.0 + self.network_.bias.detach().numpy()
        blocks = [each.expand(1) for each in (of_history, of_count, constant)]
        if fields:
            blocks.insert(0, asked.features.by_field(self.network_.attributes.detach().numpy(), fields))
        values = graph.concat(blocks, 1)
        total = values.sum(1)
        far = graph.apply("Abs", total).exceeds(NEAR)
        slope = graph.where(far, graph.apply("Tanh", total) / graph.where(far, total, 1.0), 1.0)
        lengths = graph.apply("Sqrt", (values * values).sum(2)).squeeze(2)
        weights = lengths / lengths.sum(1).at_least(float(np.finfo(np.float32).tiny))
        told = [*(field.name for field in fields), "history", "number of interactions"]
        names = [*((self.fitted_kind_, name) for name in told), ("prior", "average")]
        parts.add(names, (values * slope).widened(0, 1), weights)
        bias = np.append(np.zeros(self.item_vectors_.shape[1] - 1), 1).astype(np.float32)
        one = weights.sum(1) * 0.0 + 1.0
        parts.add([("prior", "bias")], (one * bias[None]).expand(1), one)
