"""The autoencoder of histories: its network, its losses, and training that costs as much as there are interactions.

A row, a user or else an item, is read as its history and its attributes, which make its code h. Column j
scores ``h @ V_j + b_j``. The squared loss over all cells needs no dense matrix: the squares of a row's scores add up to
``[h, 1] G [h, 1]'`` with the small matrix ``G = sum_j [V_j, b_j]' [V_j, b_j]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recsys._asked import History, ItemTable, Rows
from recsys._graphs import Value
from recsys._sparse import Csr, keep
from recsys.nn.losses import NOTHING
from recsys.nn.training import random_part
from recsys.persistence import persistent

__all__ = ["Autoencoder", "AutoencoderRecipe", "AutoencoderTrainer", "damped_rows", "softmax_loss", "squared_loss"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Vectors of some thousand cells stay in the cache while they are multiplied.
CELLS_AT_ONCE = 4096
# Attributes are few and every row has them: they are held back this many times more than the vectors of columns.
ATTRIBUTE_L2 = 30.0
# Where the standard deviations of codes start in the variational kind, as the logarithm of the variance.
START_LOG_VARIANCE = -2.0


class _SparseProduct(torch.autograd.Function):
    """The product of a CSR matrix, which is constant, and a table."""

    @staticmethod
    def forward(ctx: Any, matrix: Csr, table: Tensor) -> Tensor:
        ctx.matrix = matrix
        return torch.from_numpy(np.asarray(matrix @ table.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, torch.from_numpy(np.asarray(ctx.matrix.T @ gradients[0].numpy()))


class _ScoresAt(torch.autograd.Function):
    """Inner products of rows and columns at the entries of a CSR matrix, in its order."""

    @staticmethod
    def forward(ctx: Any, entries: Csr, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.entries = entries
        ctx.save_for_backward(rows, columns)
        left, right = rows.detach().numpy(), columns.detach().numpy()
        row = np.repeat(np.arange(entries.shape[0]), np.diff(entries.indptr))
        found = np.empty(entries.nnz, dtype=np.float32)
        for start in range(0, entries.nnz, CELLS_AT_ONCE):
            cells = slice(start, start + CELLS_AT_ONCE)
            found[cells] = np.einsum("nd,nd->n", left[row[cells]], right[entries.indices[cells]])
        return torch.from_numpy(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, Tensor]:
        rows, columns = ctx.saved_tensors
        entries = ctx.entries
        errors = Csr((gradients[0].numpy(), entries.indices, entries.indptr), shape=entries.shape)
        return None, torch.from_numpy(errors @ columns.numpy()), torch.from_numpy(errors.T @ rows.numpy())


class _Gram(torch.autograd.Function):
    """``V' V``: as it is symmetric, its gradient takes one product and not two."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(vectors)
        return vectors.T @ vectors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (vectors,) = ctx.saved_tensors
        product: Tensor = vectors @ (gradients[0] + gradients[0].T)
        return product


def sparse_product(matrix: Csr, table: Tensor) -> Tensor:
    """``matrix @ table``, with a gradient for the table."""
    product: Tensor = _SparseProduct.apply(matrix, table)  # type: ignore[no-untyped-call]
    return product


def damped_rows(matrix: Csr) -> Csr:
    """Divide each row by the root of how many entries it has: ones get the norm 1, ratings keep their level.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m), float32

    Returns
    -------
    scipy.sparse.csr_matrix of shape (n, m), float32

    Examples
    --------
    >>> damped_rows(Csr(np.array([[1, 1, 1, 1], [0, 0, 0, 5]], np.float32))).toarray()
    array([[0.5, 0.5, 0.5, 0.5],
           [0. , 0. , 0. , 5. ]], dtype=float32)
    """
    lengths = np.diff(matrix.indptr)
    scale = (1 / np.sqrt(np.maximum(lengths, 1))).astype(np.float32)
    return Csr((matrix.data * np.repeat(scale, lengths), matrix.indices, matrix.indptr), shape=matrix.shape)


def squared_loss(known: Csr, hidden: Mask, codes: Tensor, columns: Tensor, unobserved_weight: float) -> Tensor:
    r"""The squared loss of each row over all its cells but those that were shown.

    .. math:: \sum_{j \in T} (r_j - \hat r_j)^2 + w \sum_{j \notin T \cup S} \hat r_j^2

    with the hidden entries T of the row, which are to be found, and the shown ones S. The second sum is that over all
    columns less the known ones, so a row costs :math:`O((|T| + |S|) d + d^2)` and a call :math:`O(m d^2)` besides.

    Parameters
    ----------
    known : scipy.sparse.csr_matrix of shape (n, m), float32
        The entries of T and S with the targets :math:`r_j`.
    hidden : ndarray of shape (nnz,), bool
        Which of them are in T.
    codes : Tensor of shape (n, d)
    columns : Tensor of shape (m, d + 1)
        Vectors of the columns; the last dimension is the bias.
    unobserved_weight : float
        The weight w.

    Returns
    -------
    Tensor of shape (n,)

    References
    ----------
    Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, section 4.

    Examples
    --------
    Three columns that score 0.5 each: the first is to be found, the second was shown, the third was never seen.

    >>> known, hidden = Csr([[1.0, 1.0, 0.0]], dtype=np.float32), np.array([True, False])
    >>> columns = torch.tensor([[0.0, 0.5], [0.0, 0.5], [0.0, 0.5]])
    >>> squared_loss(known, hidden, torch.zeros(1, 1), columns, unobserved_weight=0.4)
    tensor([0.3500])
    """
    extended = torch.cat([codes, torch.ones(len(codes), 1)], 1)
    scores: Tensor = _ScoresAt.apply(known, extended, columns)  # type: ignore[no-untyped-call]
    found = torch.from_numpy(hidden.astype(np.float32)) * (torch.from_numpy(known.data) - scores) ** 2
    gram: Tensor = _Gram.apply(columns)  # type: ignore[no-untyped-call]
    everything = ((extended @ gram) * extended).sum(1)
    losses = unobserved_weight * everything
    return losses.index_add(0, _rows_of(known), found - unobserved_weight * scores**2)


def softmax_loss(known: Csr, hidden: Mask, codes: Tensor, columns: Tensor) -> Tensor:
    r"""The multinomial loss of each row: :math:`-\sum_{j \in T} \log \mathrm{softmax}_{j \notin S}(\hat r)_j`.

    Parameters
    ----------
    known, hidden, codes, columns
        As in `squared_loss`; the values of `known` do not matter.

    Returns
    -------
    Tensor of shape (n,)

    References
    ----------
    D. Liang et al., "Variational Autoencoders for Collaborative Filtering", WWW 2018, section 2.2.

    Examples
    --------
    Three columns score alike, but one was shown: the other two share the probability.

    >>> known, hidden = Csr([[1.0, 1.0, 0.0]], dtype=np.float32), np.array([True, False])
    >>> softmax_loss(known, hidden, torch.zeros(1, 1), torch.zeros(3, 2)).exp()
    tensor([2.])
    """
    scores = torch.addmm(columns[:, -1], codes, columns[:, :-1].T)
    row, column = _rows_of(known), torch.from_numpy(known.indices.astype(np.int64))
    shown = torch.from_numpy(~hidden)
    scores = scores.index_put((row[shown], column[shown]), torch.tensor(NOTHING))
    found = torch.log_softmax(scores, 1)[row[~shown], column[~shown]]
    return torch.zeros(len(codes)).index_add(0, row[~shown], -found)


def _rows_of(matrix: Csr) -> Tensor:
    """The row of each entry."""
    return torch.from_numpy(np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)))


@persistent
class Autoencoder(nn.Module):
    r"""A hidden layer between histories and scores.

    The code of a row is :math:`h = \tanh(x W + a A + \log(1 + n) e + c)`, where x is its history, of n entries,
    divided by the root of n, and a the attributes. Column j scores :math:`\langle h, V_j \rangle + b_j`.

    Parameters
    ----------
    sizes : dict of str to int
        ``columns``, ``attributes`` (columns of the attributes) and ``factors``.
    seed : int

    Attributes
    ----------
    inputs : Parameter of shape (columns, factors)
        W.
    attributes : Parameter of shape (attributes, factors)
        A.
    evidence, bias : Parameter of shape (factors,)
        e and c.
    outputs : Parameter of shape (columns, factors)
        V.
    biases : Parameter of shape (columns,)
        The biases b.
    spread : Parameter of shape (factors + 1, factors)
        From ``[h, 1]`` to the logarithm of the code's variance; the variational kind learns it.

    References
    ----------
    S. Sedhain, A. Menon, S. Sanner, L. Xie, "AutoRec: Autoencoders Meet Collaborative Filtering", WWW 2015.

    Examples
    --------
    >>> network = Autoencoder({"columns": 3, "attributes": 0, "factors": 2}, seed=0)
    >>> history = Csr([[1.0, 0.0, 1.0]], dtype=np.float32)
    >>> network.encode(history, Csr((1, 0), dtype=np.float32)).shape
    torch.Size([1, 2])
    """

    def __init__(self, sizes: dict[str, int], seed: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.seed = seed
        generator = torch.Generator().manual_seed(seed)
        d = sizes["factors"]
        self.inputs = nn.Parameter(torch.randn(sizes["columns"], d, generator=generator) * 0.1)
        self.attributes = nn.Parameter(torch.randn(sizes["attributes"], d, generator=generator) * 0.01)
        self.evidence = nn.Parameter(torch.zeros(d))
        self.bias = nn.Parameter(torch.zeros(d))
        self.outputs = nn.Parameter(torch.randn(sizes["columns"], d, generator=generator) * (0.3 / d**0.5))
        self.biases = nn.Parameter(torch.zeros(sizes["columns"]))
        self.spread = nn.Parameter(torch.zeros(d + 1, d))
        with torch.no_grad():
            self.spread[-1] = START_LOG_VARIANCE

    def parts(self, history: Csr, attributes: Csr, table: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What the pre-activation is the sum of.

        Parameters
        ----------
        history : scipy.sparse.csr_matrix of shape (n, m), float32
        attributes : scipy.sparse.csr_matrix of shape (n, attributes), float32
        table : Tensor of shape (m, factors), default=None
            Stands for `inputs`, where histories have other columns than those trained.

        Returns
        -------
        of_history, of_attributes : Tensor of shape (n, factors)
        of_count : Tensor of shape (n, factors)
            What the length of the history says; 0 without history.
        """
        lengths = torch.from_numpy(np.log1p(np.diff(history.indptr)).astype(np.float32))
        of_history = sparse_product(damped_rows(history), self.inputs if table is None else table)
        return of_history, sparse_product(attributes, self.attributes), lengths[:, None] * self.evidence

    def encode(self, history: Csr, attributes: Csr, table: Tensor | None = None) -> Tensor:
        """The codes of rows.

        Parameters
        ----------
        history, attributes, table
            As in `parts`.

        Returns
        -------
        Tensor of shape (n, factors)
        """
        of_history, of_attributes, of_count = self.parts(history, attributes, table)
        return torch.tanh(of_history + of_attributes + of_count + self.bias)

    def graph(self, history: History, attributes: Rows, table: ItemTable) -> Value:
        """What `encode` computes, as a graph."""
        of_history, of_count = self.history_graph(history, table)
        weights = {name: weight.detach().numpy() for name, weight in self.named_parameters()}
        total = of_history + attributes.product(weights["attributes"]) + of_count + weights["bias"]
        return total.graph.apply("Tanh", total)

    def history_graph(self, history: History, table: ItemTable) -> tuple[Value, Value]:
        """What `parts` finds of histories and their lengths, as a graph."""
        lengths = history.lengths
        of_history = history.product(table) / lengths.graph.apply("Sqrt", lengths.at_least(1.0))
        return of_history, lengths.graph.apply("Log", lengths + 1.0) * self.evidence.detach().numpy()

    def graph_without_history(self, attributes: Rows) -> Value:
        """What `encode` computes of rows that have attributes alone, as a graph."""
        total = attributes.product(self.attributes.detach().numpy()) + self.bias.detach().numpy()
        return total.graph.apply("Tanh", total)

    def columns(self) -> Tensor:
        """The vectors of the columns, V and, as the last dimension, b; shape (columns, factors + 1)."""
        return torch.cat([self.outputs, self.biases[:, None]], 1)

    def start_biases(self, biases: Floats) -> None:
        """Start the biases of the columns at these values, shape (columns,)."""
        with torch.no_grad():
            self.biases.copy_(torch.from_numpy(biases))

    def to_state(self) -> dict[str, Any]:
        """What `persistence` stores."""
        arrays = {name: value.numpy() for name, value in self.state_dict().items()}
        return {"sizes": self.sizes, "seed": self.seed, "arrays": arrays}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Autoencoder:
        """The inverse of `to_state`."""
        network = cls(state["sizes"], state["seed"])
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state["arrays"].items()})
        return network


@dataclass(frozen=True)
class AutoencoderRecipe:
    """The parameters of training; see `AutoRec`."""

    loss: Literal["squared", "multinomial"]
    n_epochs: int
    learning_rate: float
    batch_size: int
    l2: float
    unobserved_weight: float
    kl_weight: float
    dropout: float
    # A row with n entries weighs n ** -damping.
    damping: float


class AutoencoderTrainer:
    r"""Adam on what is hidden of histories, with a learning rate that falls to 0.

    Half of the histories are shown but for a share of them, of the others a random part is shown, often of a few
    entries: the network learns to answer rows of any length. A row with n entries weighs :math:`n^{-p}` in the sum over
    its entries, p being the damping: 1/2 is between one row one vote and one entry one vote.

    Parameters
    ----------
    network : Autoencoder
        Trained in place.
    targets : scipy.sparse.csr_matrix of shape (n, columns), float32
        Histories, and what is to be found of them; rows without entries are left out.
    attributes : scipy.sparse.csr_matrix of shape (n, attributes), float32
    recipe : AutoencoderRecipe
    seed : int
    """

    def __init__(
        self, network: Autoencoder, targets: Csr, attributes: Csr, recipe: AutoencoderRecipe, seed: int
    ) -> None:
        self.network = network
        self.targets, self.attributes = targets, attributes
        self.recipe = recipe
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        lengths = np.diff(targets.indptr)
        self.rows = np.flatnonzero(lengths)
        weights = np.maximum(lengths, 1.0) ** -recipe.damping
        self.weights = (weights / weights[self.rows].mean()).astype(np.float32)
        # Adam adds `weight_decay` times the weights to the gradient, which is that of the mean loss of a row.
        decay = 2 * recipe.l2 / len(self.rows)
        groups: list[dict[str, Any]] = [
            {"params": [network.inputs, network.outputs], "weight_decay": decay},
            {"params": [network.attributes], "weight_decay": ATTRIBUTE_L2 * decay},
            {"params": [network.biases, network.evidence, network.bias, network.spread]},
        ]
        self.optimizer = torch.optim.Adam(groups, lr=recipe.learning_rate, fused=True)
        n_steps = recipe.n_epochs * -(-len(self.rows) // recipe.batch_size)
        # Weights that a whole epoch of finite losses started from.
        self.sound = self._weights()
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: max(0.0, 1 - step / n_steps))

    def epoch(self) -> float:
        """Pass once over the rows.

        Returns
        -------
        float
            The mean loss of a row, without the weight decay; not finite if training has diverged. The network is then
            back where an earlier epoch started from it and went well.
        """
        before = self._weights()
        order = self.rng.permutation(self.rows)
        total = 0.0
        for start in range(0, len(order), self.recipe.batch_size):
            rows = order[start : start + self.recipe.batch_size]
            loss = self._loss(rows)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            value = float(loss.detach())
            if not np.isfinite(value):
                self.network.load_state_dict(self.sound)
                return value
            self.optimizer.step()
            self.schedule.step()
            total += value * len(rows)
        self.sound = before
        return total / len(order)

    def _weights(self) -> dict[str, Tensor]:
        return {name: weights.clone() for name, weights in self.network.state_dict().items()}

    def _loss(self, rows: Codes) -> Tensor:
        network, recipe = self.network, self.recipe
        known = self.targets[rows]
        shown = self._shown(known)
        attributes = self.attributes[rows]
        attributes = keep(attributes, self.rng.random(attributes.nnz) >= recipe.dropout)
        codes = network.encode(keep(known, shown), attributes)
        extra = torch.zeros(len(rows))
        if recipe.loss == "multinomial" and recipe.kl_weight:
            codes, divergence = self._sample(codes)
            extra = recipe.kl_weight * divergence
        if recipe.loss == "squared":
            losses = squared_loss(known, ~shown, codes, network.columns(), recipe.unobserved_weight)
        else:
            losses = softmax_loss(known, ~shown, codes, network.columns())
        return (torch.from_numpy(self.weights[rows]) * losses + extra).mean()

    def _shown(self, known: Csr) -> Mask:
        """Which entries of each row are its history now: a random part, or all but a share."""
        lengths = np.diff(known.indptr)
        part = random_part(known, lengths - 1, self.rng)
        most = self.rng.random(known.nnz) >= self.recipe.dropout
        return np.where(np.repeat(self.rng.random(len(lengths)) < 0.5, lengths), part, most)

    def _sample(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes drawn around their means, and the divergence of each from a standard normal distribution."""
        log_variance = torch.addmm(self.network.spread[-1], codes, self.network.spread[:-1])
        noise = torch.randn(codes.shape, generator=self.generator)
        divergence = 0.5 * (codes**2 + log_variance.exp() - log_variance - 1).sum(1)
        return codes + noise * (0.5 * log_variance).exp(), divergence
