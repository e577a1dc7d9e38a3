"""Where vectors are expected before any interaction: a ridge regression on features, kept up to date as they move."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys._sparse import Csr

__all__ = ["FeaturePrior"]

Floats = npt.NDArray[np.float32]

# Below this squared residual, relative to where it started, the regression is solved.
SOLVED = 1e-8
# With fewer columns their Gram matrix is made once, and steps no longer pass over the features.
FEW_COLUMNS = 1024


class FeaturePrior:
    r"""The means :math:`m_u = A^\top f_u + m` of vectors, given the features :math:`f_u` of their owners.

    A minimises :math:`\sum_u \|x_u - m - A^\top f_u\|^2 + \mu \|A\|^2`, where m is the mean of the vectors. The
    regression is refined from where it stood by conjugate gradients: as vectors move little from one round to the next,
    a few steps a round suffice.

    Parameters
    ----------
    features : scipy.sparse.csr_matrix of shape (n, n_columns), float32
        Of the owners of the vectors.
    n_factors : int
    l2 : float
        The penalty :math:`\mu`.

    Attributes
    ----------
    coefficients : ndarray of shape (n_columns, n_factors), float32
    intercept : ndarray of shape (n_factors,), float32

    References
    ----------
    D. Agarwal, B.-C. Chen, "Regression-based Latent Factor Models", KDD 2009, section 2.

    Examples
    --------
    >>> features = Csr(np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32))
    >>> prior = FeaturePrior(features, n_factors=1, l2=0.01)
    >>> prior.refine(np.array([[1.0], [1.0], [3.0], [3.0]], dtype=np.float32), n_steps=10)
    >>> prior.means(Csr(np.array([[1, 0], [0, 1], [0, 0]], dtype=np.float32))).round(1).ravel().tolist()
    [1.0, 3.0, 2.0]
    """

    def __init__(self, features: Csr, n_factors: int, l2: float) -> None:
        self.l2 = l2
        self.coefficients = np.zeros((features.shape[1], n_factors), dtype=np.float32)
        self.intercept = np.zeros(n_factors, dtype=np.float32)
        self._features = features
        self._transposed = features.T.tocsr()
        few = features.shape[1] <= FEW_COLUMNS
        self._gram = (self._transposed @ features).toarray().astype(np.float64) if few else None

    def refine(self, vectors: Floats, n_steps: int) -> None:
        """Draw the regression towards vectors.

        Parameters
        ----------
        vectors : ndarray of shape (n, n_factors), float32
        n_steps : int
            Conjugate gradient steps.
        """
        if not len(vectors):
            return
        self.intercept = vectors.mean(0)
        x = self.coefficients.astype(np.float64)
        target = (vectors - self.intercept).astype(np.float64)
        residual = self._transposed @ target - self._apply(x)
        direction = residual.copy()
        squared = (residual**2).sum(0)
        enough = SOLVED * squared
        for _ in range(n_steps):
            image = self._apply(direction)
            curvature = (direction * image).sum(0)
            # A factor that is solved stays: its further steps would divide noise by noise.
            open_ = (squared > enough) & (curvature > 0)
            if not open_.any():
                break
            length = np.divide(squared, curvature, out=np.zeros_like(squared), where=open_)
            x += length * direction
            residual -= length * image
            previous, squared = squared, (residual**2).sum(0)
            direction *= np.divide(squared, previous, out=np.zeros_like(squared), where=open_)
            direction += residual
        self.coefficients = x.astype(np.float32)

    def _apply(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The matrix of the normal equations times x."""
        image = self._transposed @ (self._features @ x) if self._gram is None else self._gram @ x
        return np.asarray(image + self.l2 * x)

    def means(self, features: Csr) -> Floats:
        """The mean of each row.

        Parameters
        ----------
        features : scipy.sparse.csr_matrix of shape (k, n_columns), float32

        Returns
        -------
        ndarray of shape (k, n_factors), float32
        """
        return np.asarray(features @ self.coefficients + self.intercept, dtype=np.float32)
