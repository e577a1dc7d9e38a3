"""AutoRec: an autoencoder of histories, by user or by item, that reads features as well."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from recsys._explanations import told_fields
from recsys._sparse import Csr, empty_csr, positives
from recsys.exceptions import InvalidInputError
from recsys.features import EncodedFeatures
from recsys.interactions import TrainingData, UserBatch
from recsys.models._als import pad_rows
from recsys.models._autorec_graphs import FOLD_IN_L2, NEAR, AutoRecGraphs
from recsys.nn.autoencoder import Autoencoder, AutoencoderRecipe, AutoencoderTrainer
from recsys.nn.readout import ridge_readout
from recsys.nn.training import few_threads, run_epochs
from recsys.topk import row_chunks, single_threaded_blas

__all__ = ["AutoRec"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# An item's vector is half its own, half readout of its content after this many interactions; readouts learn from
# entities that have had many times more.
READOUT_EVIDENCE, TRUSTED_EVIDENCE = 1.0, 10.0
# Vectors of items are compared when divided by their popularity to this power, which content then forecasts.
SIZE_POWER = 0.5
# By user, the weight of a history of n entries is n to the power of minus this: half way from entries to users.
DAMPING = 0.5
# Steps that are larger learn less from an epoch; but each costs the squares of all columns, so there are not many.
LARGEST_BATCH, MOST_STEPS = 512, 32
# The normal equations that are solved at a time have this many cells.
CELLS_AT_ONCE = 2**20


class AutoRec(AutoRecGraphs):
    r"""Autoencoder of histories with features at its input.

    ``kind="user"`` (U-AutoRec [1]_): the code of a user is
    :math:`h_u = \tanh(x_u W + a_u A + \log(1 + n_u) e + c)` with the history :math:`x_u` of :math:`n_u` items, divided
    by the root of their number, and the features :math:`a_u`; the score of an item is
    :math:`\langle h_u, V_i \rangle + b_i`. So new users need no training. What hot items have learned,
    :math:`V_i, b_i` and :math:`W_i`, is read out of their content by ridge regression; an item seen n times has the
    share 1 / (n + 1) of its vector from there, a warm item all of it.

    ``kind="item"`` (I-AutoRec): the same with users and items exchanged, so that warm items are encoded from their
    features. When the items have their codes, the vector :math:`V_u, b_u` of a user, hot or few-shot, is the ridge
    regression of the user's history on them, drawn towards what the user's features lead to expect.

    Training hides a part of each history, of random size, and some features, and minimises

    .. math:: \sum_u \frac{1}{\sqrt{n_u}} \Bigl( \sum_{i \in T_u} (r_{ui} - \hat r_{ui})^2
        + w \sum_{i \notin T_u \cup S_u} \hat r_{ui}^2 \Bigr) + \lambda (\|W\|^2 + \|V\|^2 + 30 \|A\|^2)

    (by item without the root), where :math:`T_u` is hidden and :math:`S_u` shown. With w > 0 every positive has the
    target r = 1, whatever its weight: a positive is more certain than an item that was never seen [2]_. With w = 0
    unseen items say nothing and r is the weight, a rating: the loss of the paper, which predicts ratings. An epoch
    costs as much as there are interactions.

    With ``loss="multinomial"`` (Mult-VAE [3]_) scores are logits of a softmax over the hot items, of which the hidden
    ones are draws, and an epoch costs as much as there are pairs of users and items.

    Parameters
    ----------
    kind : {"user", "item"}, default="user"
        What is encoded.
    loss : {"squared", "multinomial"}, default="squared"
        "multinomial" is for ``kind="user"`` alone.
    n_factors : int, default=256
        Hidden units.
    max_iter : int, default=37
        Epochs: passes over all users, or items; a third of them in `partial_fit`.
    learning_rate : float, default=0.01
        Of Adam, at the start; it falls to 0.
    batch_size : int, default=None
        Users, or items, in a step. None: an eighth of them, up to 512; with the squared loss at least a 32nd.
    l2 : float, default=1.5
        The weight decay :math:`\lambda`.
    unobserved_weight : float, default=0.23
        The weight w of pairs that are no positives, from 0 to 1; of the squared loss.
    kl_weight : float, default=0.0
        How much codes are drawn towards a normal distribution, the :math:`\beta` of [3]_; of the multinomial loss. At 0
        codes are not drawn at random (Mult-DAE).
    dropout : float, default=0.5
        Share of the features, and of half of the histories, that training hides.
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.
    random_state : int, RandomState instance or None, default=None
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    network_ : Autoencoder
        The network, whose columns are the hot items, or users.
    item_vectors_ : ndarray of shape (n_items, n_factors + 1), float32
        Vectors of the catalogue; by user the last dimension is the bias, by item it is 1.
    n_iter_ : int
        Epochs of the last fit.
    loss_curve_ : list of float
        The mean loss of each epoch.

    References
    ----------
    .. [1] S. Sedhain, A. Menon, S. Sanner, L. Xie, "AutoRec: Autoencoders Meet Collaborative Filtering", WWW 2015,
       section 2.
    .. [2] Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008,
       section 4.
    .. [3] D. Liang et al., "Variational Autoencoders for Collaborative Filtering", WWW 2018, section 2.

    Examples
    --------
    >>> users = ["ann", "bob", "cid", "dan"]
    >>> X = pd.DataFrame({"user_id": users * 2, "item_id": ["tea", "ale"] * 2 + ["jam", "rum"] * 2})
    >>> tastes = pd.DataFrame({"taste": ["soft", "hard", "soft", "hard", "hard"]}, index=[*users, "eve"])
    >>> model = AutoRec(n_factors=8, l2=0.01, max_iter=100, random_state=0).fit(X, user_features=tastes)
    >>> sorted(model.recommend(["eve"], k=2)["item_id"])
    ['ale', 'rum']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "kind": [StrOptions({"user", "item"})],
        "loss": [StrOptions({"squared", "multinomial"})],
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "l2": [Interval(Real, 0, None, closed="neither")],
        "unobserved_weight": [Interval(Real, 0, 1, closed="both")],
        "kl_weight": [Interval(Real, 0, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "min_rating": [Real, None],
        "random_state": ["random_state"],
        "verbose": ["boolean"],
    }

    _uses_user_features = True

    network_: Autoencoder
    # What was encoded: another kind starts afresh.
    fitted_kind_: str
    # How the vectors of items grow with their popularity: a squared loss fits probabilities, a softmax logits.
    size_power_: float
    # Whether weights are the targets.
    explicit_: bool
    columns_: Codes
    target_scale_: float
    item_vectors_: Floats
    # By user: the vectors of items by content; by item: those of users by features.
    readout_: dict[str, Floats]
    # By user: what items in a history add to its user's code.
    history_vectors_: Floats
    # By item: vectors of users with a history, and what the regression for another has in common with theirs.
    user_vectors_: Floats
    gram_: Floats

    def __init__(
        self,
        *,
        kind: Literal["user", "item"] = "user",
        loss: Literal["squared", "multinomial"] = "squared",
        n_factors: int = 256,
        max_iter: int = 37,
        learning_rate: float = 0.01,
        batch_size: int | None = None,
        l2: float = 1.5,
        unobserved_weight: float = 0.23,
        kl_weight: float = 0.0,
        dropout: float = 0.5,
        min_rating: float | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.kind = kind
        self.loss = loss
        self.n_factors = n_factors
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.l2 = l2
        self.unobserved_weight = unobserved_weight
        self.kl_weight = kl_weight
        self.dropout = dropout
        self.min_rating = min_rating
        self.random_state = random_state
        self.verbose = verbose

    def _fit(self, data: TrainingData, warm: bool) -> None:
        if self.kind == "item" and self.loss == "multinomial":
            raise InvalidInputError(
                '`loss` is "multinomial" with `kind` "item"; expected kind="user", for it is users who choose among '
                'items: pass that, or loss="squared".'
            )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        # Sums of one thread come in one order: the same seed gives the same bits, on a busy machine too.
        with single_threaded_blas(), few_threads(0):
            self._train(data, warm, seed)
            if self.kind == "user":
                self._read_out_items(data, seed)
            else:
                self._encode_items(data)
                self._solve_users(data, seed)

    def _train(self, data: TrainingData, warm: bool, seed: int) -> None:
        matrix = data.matrix if self.kind == "user" else data.matrix.T.tocsr()
        attributes = data.user_features.matrix if self.kind == "user" else data.item_features.matrix
        columns = np.flatnonzero(np.bincount(matrix.indices, minlength=matrix.shape[1]))
        self.explicit_ = self.loss == "squared" and self.unobserved_weight == 0
        self.size_power_ = SIZE_POWER if self.loss == "squared" and not self.explicit_ else 0.0
        self.target_scale_ = float(np.sqrt(np.mean(matrix.data.astype(np.float64) ** 2))) if self.explicit_ else 1.0
        targets = self._targets(matrix[:, columns])
        network = Autoencoder(
            {"columns": len(columns), "attributes": attributes.shape[1], "factors": self.n_factors}, seed
        )
        network.start_biases(self._first_biases(targets))
        if warm and self.fitted_kind_ == self.kind and self.network_.sizes["factors"] == self.n_factors:
            _start_from(network, columns, self.network_, self.columns_)
        self.fitted_kind_, self.fitted_l2_ = self.kind, float(self.l2)
        self.fitted_unobserved_weight_ = float(self.unobserved_weight)
        trainer = AutoencoderTrainer(network, targets, attributes, self._recipe(targets, warm), seed)
        bar = type(self).__name__ if self.verbose else None
        self.loss_curve_ = run_epochs(trainer, trainer.recipe.n_epochs, self.learning_rate, bar)
        self.n_iter_ = len(self.loss_curve_)
        self.network_, self.columns_ = network, columns

    def _recipe(self, targets: Csr, warm: bool) -> AutoencoderRecipe:
        n_rows = int(np.count_nonzero(np.diff(targets.indptr)))
        batch_size = min(LARGEST_BATCH, max(1, -(-n_rows // 8)))
        if self.loss == "squared":
            batch_size = max(batch_size, -(-n_rows // MOST_STEPS))
        return AutoencoderRecipe(
            loss=self.loss,
            n_epochs=max(1, self.max_iter // 3) if warm else self.max_iter,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size or batch_size,
            l2=self.l2,
            unobserved_weight=self.unobserved_weight,
            kl_weight=self.kl_weight,
            dropout=self.dropout,
            damping=DAMPING if self.kind == "user" else 0.0,
        )

    def _first_biases(self, targets: Csr) -> Floats:
        """The scores of columns that fit best where every row scores them alike."""
        counts = np.bincount(targets.indices, minlength=targets.shape[1])
        if self.loss == "multinomial":
            return np.asarray(np.log(counts / counts.mean()), dtype=np.float32)
        sums = np.bincount(targets.indices, weights=targets.data, minlength=targets.shape[1])
        n_rows = int(np.count_nonzero(np.diff(targets.indptr)))
        return np.asarray(sums / (counts + self.unobserved_weight * (n_rows - counts)), dtype=np.float32)

    def _read_out_items(self, data: TrainingData, seed: int) -> None:
        """By user: vectors of hot items as learned, those of the others as their content lets expect."""
        hot, network = self.columns_, self.network_
        counts = np.bincount(data.matrix.indices, minlength=data.matrix.shape[1])[hot, None].astype(np.float32)
        logs = np.log(counts)
        logs -= logs.mean()
        vectors = network.columns().detach().numpy()
        history = network.inputs.detach().numpy()
        damped = (vectors / np.exp(self.size_power_ * logs)).astype(np.float32)
        content, trust = data.item_features.matrix[hot], counts[:, 0] / (counts[:, 0] + TRUSTED_EVIDENCE)
        self.readout_ = _readout(content, [damped, history, logs], trust, seed)
        self.item_vectors_, self.history_vectors_ = self._from_content(data.item_features)
        share = counts / (counts + np.float32(READOUT_EVIDENCE))
        self.item_vectors_[hot] += share * (np.float32(self.target_scale_) * vectors - self.item_vectors_[hot])
        self.history_vectors_[hot] += share * (history - self.history_vectors_[hot])

    def _from_content(self, features: EncodedFeatures) -> tuple[Floats, Floats]:
        """By user: item vectors and history vectors as content lets expect."""
        found = _read(self.readout_, features)
        # No item is more popular than there are users.
        most = np.float32(np.log1p(len(self.users_)))
        forecast = np.float32(self.target_scale_) * np.exp(self.size_power_ * np.clip(found[:, -1:], -most, most))
        width = self.network_.sizes["factors"] + 1
        return found[:, :width] * forecast, np.ascontiguousarray(found[:, width:-1])

    def _encode_items(self, data: TrainingData) -> None:
        """By item: the codes of the catalogue."""
        history = data.matrix.T.tocsr()[:, self.columns_]
        self.item_vectors_ = _with_one(self._codes_of(history, data.item_features))
        hot = self.item_vectors_[np.diff(history.indptr) > 0].astype(np.float64)
        self.gram_ = (hot.T @ hot).astype(np.float32)

    def _solve_users(self, data: TrainingData, seed: int) -> None:
        """By item: vectors of users by regression on the codes, and their readout from the features of users."""
        hot = self.columns_
        learned = self.network_.columns().detach().numpy()
        counts = np.diff(data.matrix.indptr)[hot].astype(np.float32)
        trust = counts / (counts + np.float32(TRUSTED_EVIDENCE))
        self.readout_ = _readout(data.user_features.matrix[hot], [learned], trust, seed)
        self.user_vectors_ = self._fold_in(data.matrix, _read(self.readout_, data.user_features))

    def _fold_in(self, history: Csr, expected: Floats) -> Floats:
        """By item: the vectors of users that their histories, and what is expected of them, lead to."""
        targets, l2 = self._targets(history), FOLD_IN_L2 * self.fitted_l2_
        return _solve(targets, self.item_vectors_, self.gram_, expected, self.fitted_unobserved_weight_, l2)

    def _codes_of(self, history: Csr, features: EncodedFeatures, table: Floats | None = None) -> Floats:
        with torch.no_grad():
            inputs = None if table is None else torch.from_numpy(table)
            codes: Floats = self.network_.encode(self._targets(history), features.matrix, inputs).numpy()
        return codes

    def _items_appended(self) -> None:
        new = self.item_features_.take(np.arange(len(self.item_vectors_), len(self.items_)))
        if self.fitted_kind_ == "user":
            vectors, history = self._from_content(new)
            self.item_vectors_ = np.concatenate([self.item_vectors_, vectors])
            self.history_vectors_ = np.concatenate([self.history_vectors_, history])
        else:
            codes = self._codes_of(empty_csr(len(new), len(self.columns_)), new)
            self.item_vectors_ = np.concatenate([self.item_vectors_, _with_one(codes)])

    def _item_parts(self) -> tuple[Floats, ...]:
        return (self.item_vectors_,)

    def _item_embeddings(self) -> Floats:
        return self.item_vectors_[:, :-1]

    def _user_vectors(self, batch: UserBatch) -> Floats:
        if self.fitted_kind_ == "user":
            return _with_one(self._codes_of(batch.history, batch.features, self.history_vectors_))
        vectors = np.empty((len(batch), self.item_vectors_.shape[1]), dtype=np.float32)
        holds = self._as_in_fit(batch)
        vectors[holds] = self.user_vectors_[batch.codes[holds]]
        new = np.flatnonzero(~holds)
        if len(new):
            vectors[new] = self._fold_in(batch.history[new], _read(self.readout_, batch.features.take(new)))
        return vectors * np.float32(self.target_scale_)

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        """A code is its pre-activation z times tanh(z) / z, unit by unit, and each part of z has its part of the score.

        Sources are the fields of who is encoded, "history" and "number of interactions", and the priors "average" (the
        constant c) and "bias"; the weight of a field is its share of the length of what z is the sum of.
        """
        if self.fitted_kind_ == "user":
            history, features, table = batch.history, batch.features, torch.from_numpy(self.history_vectors_)
            entities, against = rows, self.item_vectors_[items]
        else:
            asked, entities = np.unique(items, return_inverse=True)
            history = positives(self.history_[:, asked]).T.tocsr()[:, self.columns_]
            features, table = self.item_features_.take(asked), None
            against = self._user_vectors(batch)[rows]
        with torch.no_grad():
            found = self.network_.parts(self._targets(history), features.matrix, table)
        attributes = self.network_.attributes.detach().numpy()
        fields = [features.block(field) @ attributes[field.start : field.stop] for field in features.fields]
        constant = np.broadcast_to(self.network_.bias.detach().numpy(), found[0].shape)
        values = np.stack([*fields, found[0].numpy(), found[2].numpy(), constant], axis=1)
        total = values.sum(1)
        near = np.abs(total) <= NEAR
        slope = np.where(near, 1, np.tanh(total) / np.where(near, 1, total)).astype(np.float32)
        lengths = np.linalg.norm(values, axis=2)
        weights = lengths / np.maximum(lengths.sum(1, keepdims=True), np.finfo(np.float32).tiny)
        parts = np.empty((len(rows), values.shape[1]), dtype=np.float32)
        for chunk in row_chunks(len(rows), values[0].size):
            turned = against[chunk, :-1] * slope[entities[chunk]]
            parts[chunk] = np.einsum("nfd,nd->nf", values[entities[chunk]], turned)
        names = [*(field.name for field in features.fields), "history", "number of interactions"]
        told = told_fields(self.fitted_kind_, names, weights[entities, :-1], parts[:, :-1])
        priors = np.column_stack([parts[:, -1], against[:, -1]])
        of_prior = np.column_stack([weights[entities, -1], np.ones(len(rows), dtype=np.float32)])
        return pd.concat([told, told_fields("prior", ["average", "bias"], of_prior, priors)])


def _solve(targets: Csr, items: Floats, gram: Floats, expected: Floats, unobserved_weight: float, l2: float) -> Floats:
    """The rows x that minimise the squared loss of ``x @ items.T`` plus ``l2 |x - expected|^2``."""
    d = items.shape[1]
    answer = expected.copy()
    common = unobserved_weight * gram.astype(np.float64) + l2 * np.eye(d)
    step = max(1, CELLS_AT_ONCE // d**2)
    for block in pad_rows(targets, d).blocks:
        for start in range(0, len(block.rows), step):
            part = slice(start, start + step)
            rows, weights = block.rows[part], block.weights[part]
            seen = items[block.columns[part]] * (weights > 0)[:, :, None]
            matrix = common + (1 - unobserved_weight) * (seen.transpose(0, 2, 1) @ seen)
            aim = (weights[:, None] @ seen)[:, 0] + l2 * expected[rows].astype(np.float64)
            answer[rows] = np.linalg.solve(matrix, aim[:, :, None])[:, :, 0]
    return answer


def _with_one(codes: Floats) -> Floats:
    return np.column_stack([codes, np.ones(len(codes), dtype=np.float32)])


def _readout(content: Csr, blocks: list[Floats], trust: Floats, seed: int) -> dict[str, Floats]:
    """The regression of vectors on content; blocks of them, of whatever size, have the same say in its penalty."""
    sizes = [np.float32(max(np.sqrt((block**2).mean()), np.finfo(np.float32).tiny)) for block in blocks]
    scales = np.repeat(np.array(sizes), [block.shape[1] for block in blocks])
    coefficients, intercept, *_ = ridge_readout(content, np.hstack(blocks) / scales, trust, seed)
    return {"coefficients": coefficients * scales, "intercept": intercept * scales}


def _read(readout: dict[str, Floats], features: EncodedFeatures) -> Floats:
    """What features let expect of vectors."""
    found: Floats = np.asarray(features.matrix @ readout["coefficients"], dtype=np.float32) + readout["intercept"]
    return found


def _start_from(network: Autoencoder, columns: Codes, old: Autoencoder, old_columns: Codes) -> None:
    """Give the network the weights of the old one; columns that are new stay fresh."""
    _, at, before = np.intersect1d(columns, old_columns, assume_unique=True, return_indices=True)
    with torch.no_grad():
        for name, weights in network.named_parameters():
            known = old.get_parameter(name)
            if name in ("inputs", "outputs", "biases"):
                weights[torch.from_numpy(at)] = known[torch.from_numpy(before)]
            else:
                weights.copy_(known)
