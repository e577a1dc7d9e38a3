"""Rows of an explanation, from arrays of weights and contributions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["told_fields"]

Floats = npt.NDArray[np.float32]


def told_fields(source: str, names: list[str], weights: npt.NDArray[np.generic], parts: Floats) -> pd.DataFrame:
    """One row a pair and field that has weight.

    Parameters
    ----------
    source : str
    names : list of str
        Of the fields.
    weights : ndarray of shape (n_pairs, n_fields), float32 or bool
        Fields that weigh nothing are left out.
    parts : ndarray of shape (n_pairs, n_fields), float32
        What they contribute.

    Returns
    -------
    DataFrame
        Columns ``row``, ``source``, ``field``, ``weight`` and ``contribution``.

    Examples
    --------
    >>> told_fields("user", ["age", "club"], np.array([[0.0, 0.5]]), np.array([[0.0, 2.0]]))[["row", "field"]]
       row field
    0    0  club
    """
    rows, fields = np.nonzero(weights)
    return pd.DataFrame(
        {
            "row": rows,
            "source": source,
            "field": np.array(names, dtype=object)[fields],
            "weight": weights[rows, fields].astype(np.float32),
            "contribution": parts[rows, fields].astype(np.float32),
        }
    )
