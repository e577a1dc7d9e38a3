"""Data sets to learn from: MovieLens, and synthetic data of its shape and any size."""

from __future__ import annotations

from recsys.datasets.movielens import fetch_movielens
from recsys.datasets.synthetic import make_movielens_like

__all__ = ["fetch_movielens", "make_movielens_like"]
