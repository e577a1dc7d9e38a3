"""DeepFM: a factorization machine and a multilayer perceptron over fields of users and items."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from torch.nn import functional

from recsys._explanations import told_fields
from recsys._state import COLD, HOT
from recsys.base import BaseRecommender
from recsys.exceptions import InvalidInputError
from recsys.interactions import TrainingData, UserBatch
from recsys.nn.deepfm import DeepFMNet
from recsys.nn.pairs import DeepFMTrainer, PairRecipe, PairSampler
from recsys.nn.towers import FieldBags, bags_of, sizes_of
from recsys.nn.training import few_threads, run_epochs

__all__ = ["DeepFM"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
# The vectors of ids, and those of the other fields.
Fields = tuple[torch.Tensor, torch.Tensor]

# Pairs in a step, where it is not said, are a 64th of an epoch, up to this many.
MOST_PAIRS = 32_768
# Pairs that are scored at a time: the activations of a layer of 64 units are 4 MB, which stay in the cache.
PAIRS_AT_A_TIME = 4096
# Pairs whose users are looked up together.
PAIRS_OF_A_BATCH = 2**18
# To gather the halves of more pairs than this share of all costs more than to score all.
MOST_OF_CATALOGUE = 0.5
# A multiple of what the kernels of BLAS take at a time: items that are alike then score alike.
ROWS_A_KERNEL = 64


class DeepFM(BaseRecommender):
    r"""Factorization machine and multilayer perceptron over the same field vectors [1]_.

    A user has the fields id, attributes, context and history, an item has id and metadata; a field that is missing is
    the vector 0. With field vectors :math:`e_f` and first-order weights :math:`w_f` the score is

    .. math:: b + \sum_f w_f + \sum_{f < g} \langle e_f, e_g \rangle + \mathrm{MLP}([e_1, \dots, e_F]).

    The history is the sum of its items' history vectors over a learned power of their number. In training a positive is
    never in its own history, histories have random sizes, and ids are hidden at random, so that one network answers
    hot, few-shot and warm users and items.

    Instead of the paper's log loss on clicks, each positive is a softmax against negatives of its user [2]_, half of
    them drawn by popularity, half evenly, with correction for how they are drawn: on MovieLens that ranks better. A
    user of n positives weighs :math:`\sqrt n`. Adam learns [3]_, and the weights are averaged over the last steps.

    Parameters
    ----------
    n_factors : int, default=64
        Dimensions of the field vectors.
    hidden_units : tuple of int, default=(64, 64)
        Widths of the hidden layers, one or more.
    max_iter : int, default=6
        Epochs: passes over all positives; a third of them in `partial_fit`.
    learning_rate : float, default=0.003
        Of Adam.
    batch_size : int, default=None
        Pairs in a step, positives and negatives. None: a 64th of an epoch, up to 32,768.
    n_negatives : int, default=7
        Negatives drawn for each positive; all positives of a user in a step share them.
    dropout : float, default=0.25
        Share of the units of each hidden layer that are dropped in training, in steps of 1/256.
    l2 : float, default=0.0
        Weight of the squared norm of the field vectors of a user and of an item, on average, beside the loss.
    id_dropout : float, default=0.5
        How often the id of a user is hidden in training; that of an item is in one pair of five.
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.
    random_state : int, RandomState instance or None, default=None
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    net_ : DeepFMNet
        The network.
    item_halves_ : ndarray of shape (n_items, hidden_units[0] + n_factors + 1), float32
        All that a score needs of an item: part of the first layer, sum of field vectors, part of the score.
    n_iter_ : int
        Epochs of the last fit.
    loss_curve_ : list of float
        The mean loss of each epoch.

    References
    ----------
    .. [1] H. Guo, R. Tang, Y. Ye, Z. Li, X. He, "DeepFM: A Factorization-Machine based Neural Network for CTR
       Prediction", IJCAI 2017, section 2.
    .. [2] Y. Bengio, J.-S. Senécal, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic
       Language Model", IEEE Transactions on Neural Networks, 2008.
    .. [3] D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.

    Examples
    --------
    >>> users, items = ["ann", "bob", "cid", "dan"], ["tea", "ale", "jam", "rum", "gin"]
    >>> X = pd.DataFrame({"user_id": users * 2, "item_id": ["tea", "ale"] * 2 + ["jam", "rum"] * 2})
    >>> kinds = pd.DataFrame({"kind": ["soft", "hard", "soft", "hard", "hard"]}, index=items)
    >>> model = DeepFM(n_factors=8, max_iter=50, random_state=0).fit(X, item_features=kinds)
    >>> model.recommend(["bob"], k=1)["item_id"].tolist()
    ['gin']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "hidden_units": ["array-like"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "n_negatives": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "l2": [Interval(Real, 0, None, closed="left")],
        "id_dropout": [Interval(Real, 0, 1, closed="left")],
        "min_rating": [Real, None],
        "random_state": ["random_state"],
        "verbose": ["boolean"],
    }

    _uses_user_features = True
    _uses_context = True

    net_: DeepFMNet
    item_halves_: Floats
    history_vectors_: Floats

    def __init__(
        self,
        *,
        n_factors: int = 64,
        hidden_units: tuple[int, ...] = (64, 64),
        max_iter: int = 6,
        learning_rate: float = 0.003,
        batch_size: int | None = None,
        n_negatives: int = 7,
        dropout: float = 0.25,
        l2: float = 0.0,
        id_dropout: float = 0.5,
        min_rating: float | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_factors = n_factors
        self.hidden_units = hidden_units
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_negatives = n_negatives
        self.dropout = dropout
        self.l2 = l2
        self.id_dropout = id_dropout
        self.min_rating = min_rating
        self.random_state = random_state
        self.verbose = verbose

    def _fit(self, data: TrainingData, warm: bool) -> None:
        hidden = _read_hidden(self.hidden_units)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        batch_size = self.batch_size or min(MOST_PAIRS, max(1, data.matrix.nnz * (1 + self.n_negatives) // 64))
        recipe = PairRecipe(self.learning_rate, batch_size, self.n_negatives, self.id_dropout, self.dropout, self.l2)
        n_epochs = max(1, self.max_iter // 3) if warm else self.max_iter
        counts = np.bincount(data.matrix.indices, minlength=data.matrix.shape[1]).astype(np.float32)
        # One thread: what several add up in a product depends on how many they are.
        with few_threads(0):
            net = self._new_net(data, hidden, seed)
            net.start_at(torch.from_numpy(counts))
            # Other widths start afresh.
            if warm and (self.net_.sizes["factors"], self.net_.hidden) == (self.n_factors, net.hidden):
                _start_from(net, self.net_)
            self._train(net, PairSampler(data, self.n_negatives), recipe, n_epochs, seed)
        self.net_, self.item_counts_ = net, counts
        self._items_appended()

    def _new_net(self, data: TrainingData, hidden: list[int], seed: int) -> DeepFMNet:
        return DeepFMNet(sizes_of(data, self.n_factors), hidden, seed)

    def _train(self, net: DeepFMNet, sampler: PairSampler, recipe: PairRecipe, n_epochs: int, seed: int) -> None:
        trainer = DeepFMTrainer(net, sampler, recipe, seed)
        bar = type(self).__name__ if self.verbose else None
        self.loss_curve_ = run_epochs(trainer, n_epochs, self.learning_rate, bar)
        self.n_iter_ = len(self.loss_curve_)
        trainer.swap_averages()

    def _items_appended(self) -> None:
        counts = np.zeros(len(self.items_), dtype=np.float32)
        counts[: len(self.item_counts_)] = self.item_counts_
        self.item_counts_ = counts
        everything = np.arange(-(-len(counts) // ROWS_A_KERNEL) * ROWS_A_KERNEL)
        everything[len(counts) :] = -1
        with torch.no_grad():
            fields = self._item_fields(everything)
            known = torch.from_numpy(self._known(everything))
            rows = self._id_rows(everything)
            self.history_vectors_ = self.net_.history_vectors(fields, rows, known).numpy()[: len(counts)]
            self.item_halves_ = self.net_.halves(fields, "item")[0].numpy()[: len(counts)]

    def _known(self, items: Codes) -> npt.NDArray[np.bool_]:
        """Whether these items have an id to speak of; -1 stands for no item."""
        return (items >= 0) & (self.item_counts_[items] > 0)

    def _id_rows(self, items: Codes) -> torch.Tensor:
        """Rows of the tables; items that came later have none, and no interactions that would let it count."""
        return torch.from_numpy(np.clip(items, 0, self.net_.sizes["items"] - 1))

    def _item_fields(self, items: Codes) -> Fields:
        bags = FieldBags(self.item_features_.take(items))
        return self.net_.item_fields(bags, self._id_rows(items), torch.from_numpy(self._known(items)))

    def _user_fields(self, batch: UserBatch) -> Fields:
        # Users who joined without training have no id to speak of.
        known = (batch.codes >= 0) & (batch.path == HOT) & (batch.codes < self.net_.sizes["users"]) & batch.trained
        ids = torch.from_numpy(np.where(known, batch.codes, 0)), torch.from_numpy(known)
        history = (
            torch.from_numpy(self.history_vectors_),
            torch.from_numpy(batch.history.indices.astype(np.int64)),
            torch.from_numpy(np.diff(batch.history.indptr).astype(np.int64)),
        )
        return self.net_.user_fields(ids, FieldBags(batch.features), bags_of(batch.context, len(batch)), history)

    def _score_batch(self, batch: UserBatch) -> Floats:
        n_items = len(self.item_halves_)
        scores = np.empty((len(batch), n_items), dtype=np.float32)
        width = min(-(-n_items // ROWS_A_KERNEL) * ROWS_A_KERNEL, PAIRS_AT_A_TIME)
        height = max(1, PAIRS_AT_A_TIME // width)
        with torch.no_grad():
            items = torch.from_numpy(self.item_halves_)
            users = self.net_.halves(self._user_fields(batch), "user")[0]
            workspace = self.net_.workspace(width * height)
            for left in range(0, n_items, width):
                block = items[left : left + width]
                block = functional.pad(block, (0, 0, 0, -len(block) % ROWS_A_KERNEL))
                for top in range(0, len(batch), height):
                    found = self.net_.grid(users[top : top + height], block, workspace).numpy()
                    scores[top : top + height, left : left + width] = found[:, : n_items - left]
        return scores

    def _score_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> Floats:
        """Scores of pairs alone, where they are few of the catalogue."""
        if len(rows) > MOST_OF_CATALOGUE * len(batch) * len(self.items_):
            return super()._score_pairs(batch, rows, items)
        scores = self.popularity_[items]
        told = np.flatnonzero(batch.path[rows] != COLD)
        order = told[np.argsort(rows[told], kind="stable")]
        with torch.no_grad():
            halves = torch.from_numpy(self.item_halves_)
            for start in range(0, len(order), PAIRS_OF_A_BATCH):
                at = order[start : start + PAIRS_OF_A_BATCH]
                asked, position = np.unique(rows[at], return_inverse=True)
                users = self.net_.halves(self._user_fields(batch.take(asked)), "user")[0]
                # The last block is filled up with pairs of no interest.
                fill = (0, -len(at) % ROWS_A_KERNEL)
                of_user, of_item = (torch.from_numpy(np.pad(codes, fill)) for codes in (position, items[at]))
                blocks = zip(torch.split(of_user, PAIRS_AT_A_TIME), torch.split(of_item, PAIRS_AT_A_TIME), strict=True)
                found = [self.net_.pairs(users.index_select(0, u), halves.index_select(0, i)) for u, i in blocks]
                scores[at] = torch.cat(found).numpy()[: len(at)]
        return scores

    def _similarity(self, items: Codes) -> Floats:
        """Cosine of the sums of field vectors, by which the factorization machine tells items apart."""
        vectors = self.item_halves_[:, self.net_.hidden[0] : -1]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
        return np.asarray(unit[items] @ unit.T, dtype=np.float32)

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        """Each interaction is told half by either field, the perceptron by its slopes, which hold around the pair."""
        context = () if batch.context is None else batch.context.fields
        fields = batch.features.fields, context, self.item_features_.fields
        of_users, of_context, of_items = ([field.name for field in some] for some in fields)
        names = ["id", *of_users, *of_context, "history", "id", *of_items]
        at, n_items = torch.from_numpy(rows), len(of_items) + 1
        with torch.no_grad():
            everyone, wanted = self._user_fields(batch), self._item_fields(items)
            users = self.net_.halves(everyone, "user")[0].index_select(0, at)
            slopes, rest = self.net_.slopes(users, self.net_.halves(wanted, "item")[0])
            chosen = (*(part.index_select(0, at) for part in everyone), *wanted)
            values = torch.cat([part if part.dim() == 3 else part.unsqueeze(1) for part in chosen], 1)
            vectors, weights = values[..., :-1], values[..., -1]
            interactions = (vectors * (vectors.sum(1, keepdim=True) - vectors)).sum(2) / 2
            heeded = torch.cat([slopes @ self.net_.first[side].T for side in ("user", "item")], 1).view(vectors.shape)
            parts = (weights + interactions + (vectors * heeded).sum(2)).numpy()
            bias = (rest + slopes @ self.net_.biases[0] + self.net_.biases[-1]).unsqueeze(1).numpy()
            present = (values != 0).any(2).numpy()
        split = len(names) - n_items
        return pd.concat(
            [
                told_fields("user", names[:split], present[:, :split], parts[:, :split]),
                told_fields("item", names[split:], present[:, split:], parts[:, split:]),
                told_fields("prior", ["bias"], np.ones_like(bias, dtype=bool), bias),
            ]
        )


def _read_hidden(hidden: Any) -> list[int]:
    """The widths of the hidden layers."""
    widths = list(hidden)
    if not widths or not all(isinstance(width, Integral) and int(width) >= 1 for width in widths):
        raise InvalidInputError(f"`hidden_units` is {hidden!r}; expected one width or more, each a whole number from 1")
    return [int(width) for width in widths]


def _start_from(net: DeepFMNet, old: DeepFMNet) -> None:
    """Go on from the old weights; those of new users and items stay fresh."""
    with torch.no_grad():
        for name, weights in net.named_parameters():
            before = old.get_parameter(name)
            kept = weights if weights.shape == before.shape else weights[: len(before)]
            kept.copy_(before)
