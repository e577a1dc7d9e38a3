r"""A memory of users: whose tastes a history tells of, in closed form.

A user of the memory takes item i with probability :math:`p_{ui}`, half of what the model scores and half of what they
have. A history h is then that of the user u with probability

.. math:: \pi_u \propto \exp\Bigl(\beta \sum_{i \in h} \log \frac{p_{ui}}{\sum_j p_{uj}}\Bigr),

the posterior of a mixture of users, and the softmax that a contrast of histories with their users (InfoNCE) has as its
optimum. What the history tells is the mean of the users' tastes under it: it is not linear in the history, as what
autoencoders tell is. The logarithms are factorised, so that a memory is attended to by inner products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg

from recsys._asked import AskedUsers
from recsys._graphs import Value
from recsys._sparse import Csr
from recsys.models._dropout_ease import leading_basis
from recsys.persistence import persistent
from recsys.topk import row_chunks

__all__ = ["UserMemory"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# At the most so many users are remembered, by so many of the most popular items, and so many pairs of both.
MOST_USERS, MOST_ITEMS, MOST_PAIRS = 8192, 20_000, 50_000_000
# Dimensions of what is compared.
RANK = 128
# The share of what users have in their tastes; probabilities are between these.
OWN, LEAST, MOST = 0.5, 0.02, 0.98
# The temperature of the posterior: interactions of one history tell the same thing in part.
SHARPNESS = 1.5
# The logarithm of what is impossible: lower than any other, and finite.
UNLIKELY = -1e30
# What users have is told in the space of the vectors by ridge regression, with this part of their mean variance.
OWN_L2 = 0.1


@persistent
class UserMemory:
    """Users whose tastes answer for those who are like them.

    Parameters
    ----------
    users : ndarray of shape (m,), int64
        Codes of those remembered, ascending.
    items : ndarray of shape (n_items, r), float32
        What an item of a history says.
    keys : ndarray of shape (m, r), float32
        The inner product of a user's key with the sum of a history's items is the log-likelihood, up to a constant.
    tastes : ndarray of shape (m, d), float32
        Vectors of the users: their inner products with item vectors are shares of what they take.
    """

    def __init__(self, users: Codes, items: Floats, keys: Floats, tastes: Floats) -> None:
        self.users = users
        self.items = items
        self.keys = keys
        self.tastes = tastes

    @classmethod
    def learn(cls, matrix: Csr, user_vectors: Floats, item_vectors: Floats, rng: np.random.RandomState) -> UserMemory:
        """Remember users.

        Parameters
        ----------
        matrix : scipy.sparse.csr_matrix of shape (n_users, n_items)
            Ones for positives.
        user_vectors : ndarray of shape (n_users, d), float32
        item_vectors : ndarray of shape (n_items, d), float32
            Inner products estimate the probability of a positive.
        rng : RandomState
            Draws users where there are too many.

        Returns
        -------
        UserMemory
        """
        counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
        popular = np.sort(np.lexsort((np.arange(len(counts)), -counts))[: min(np.count_nonzero(counts), MOST_ITEMS)])
        active = np.flatnonzero(np.diff(matrix.indptr))
        most = min(MOST_USERS, max(1, MOST_PAIRS // max(len(popular), 1)))
        users = np.sort(rng.permutation(active)[:most])
        history, vectors = matrix[users], item_vectors[popular]
        own = _in_vectors(history[:, popular], vectors)
        likely = user_vectors[users] @ vectors.T
        likely *= 1 - OWN
        _add_ones(likely, history[:, popular], OWN)
        np.clip(likely, LEAST, MOST, out=likely)
        total = likely.sum(1, keepdims=True)
        logs = np.log(likely / total)
        logs -= logs.mean(0)
        basis, _ = leading_basis(lambda x: logs.T @ (logs @ x), len(popular), RANK, rng)
        items = np.zeros((matrix.shape[1], basis.shape[1]), dtype=np.float32)
        items[popular] = basis
        tastes = ((1 - OWN) * user_vectors[users] + OWN * own) / total
        return cls(users, items, logs @ basis, tastes.astype(np.float32))

    def attend(self, history: Csr, codes: Codes) -> Floats:
        """The mean taste of the users whom a history may be of.

        Parameters
        ----------
        history : scipy.sparse.csr_matrix of shape (n, n_items)
            Ones for positives.
        codes : ndarray of shape (n,), int64
            Users themselves, who are not asked about; -1 for new ones.

        Returns
        -------
        ndarray of shape (n, d), float32
            0 where nobody else is remembered.

        Examples
        --------
        >>> memory = UserMemory(np.arange(2), np.eye(2, dtype="f4"), 9 * np.eye(2, dtype="f4"), np.eye(2, dtype="f4"))
        >>> memory.attend(Csr(np.array([[1.0, 0.0], [1.0, 0.0]])), np.array([-1, 0])).round(2)
        array([[1., 0.],
               [0., 1.]], dtype=float32)
        """
        found = np.zeros((history.shape[0], self.tastes.shape[1]), dtype=np.float32)
        place = np.searchsorted(self.users, codes)
        place[place == len(self.users)] = 0
        own = self.users[place] == codes
        if own.any() and len(self.users) == 1:
            others = np.flatnonzero(~own)
            found[others] = self.attend(history[others], codes[others])
            return found
        for rows in row_chunks(history.shape[0], len(self.users)):
            told = np.asarray(history[rows] @ self.items, dtype=np.float32)
            weights = SHARPNESS * (told @ self.keys.T)
            itself = np.flatnonzero(own[rows])
            weights[itself, place[rows][itself]] = -np.inf
            weights -= weights.max(1, keepdims=True)
            np.exp(weights, out=weights)
            weights /= weights.sum(1, keepdims=True)
            found[rows] = weights @ self.tastes
        return found

    def graph(self, asked: AskedUsers) -> Value:
        """What `attend` finds for histories that are not empty, as a graph."""
        # Items that joined say nothing.
        graph, history = asked.graph, asked.history.exported.pattern
        logits = history.product(self.items) @ np.ascontiguousarray(SHARPNESS * self.keys.T)
        if not asked.with_known:
            return graph.apply("Softmax", logits, axis=1) @ self.tastes
        itself = asked.known.equals(self.users[None])
        others = graph.apply("Softmax", graph.where(itself, UNLIKELY, logits), axis=1) @ self.tastes
        # Where nobody else is remembered, nothing is.
        return others * (1.0 - itself) if len(self.users) == 1 else others

    def grown(self, n_items: int) -> UserMemory:
        """The memory of a catalogue that has grown: new items say nothing."""
        items = np.pad(self.items, ((0, n_items - len(self.items)), (0, 0)))
        return UserMemory(self.users, items, self.keys, self.tastes)

    def to_state(self) -> dict[str, Any]:
        """What `persistence` stores."""
        return {"users": self.users, "items": self.items, "keys": self.keys, "tastes": self.tastes}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> UserMemory:
        """The inverse of `to_state`."""
        return cls(state["users"], state["items"], state["keys"], state["tastes"])


def _in_vectors(history: Csr, vectors: Floats) -> Floats:
    """Vectors whose inner products with those of items come nearest to histories, by ridge regression."""
    gram = (vectors.T @ vectors).astype(np.float64)
    gram[np.diag_indices_from(gram)] += OWN_L2 * max(float(np.trace(gram)) / len(gram), 1e-30)
    return np.asarray(linalg.solve(gram, (history @ vectors).T, assume_a="pos").T, dtype=np.float32)


def _add_ones(dense: Floats, history: Csr, value: float) -> None:
    rows = np.repeat(np.arange(history.shape[0]), np.diff(history.indptr))
    dense[rows, history.indices] += np.float32(value)
