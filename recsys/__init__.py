"""Recommendations for new users and new items, as scikit-learn estimators.

Every public name is imported when it is first used (PEP 562), so that ``import recsys`` costs next to
nothing and loads none of torch, faiss and lightgbm.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import datasets as datasets
    from . import evaluation as evaluation
    from . import exceptions as exceptions
    from . import retrieval as retrieval
    from . import serving as serving
    from .base import BaseRecommender
    from .features import FeatureTable
    from .models.autorec import AutoRec
    from .models.content import ContentEASE
    from .models.contrastive import ContrastiveRecommender
    from .models.deepfm import DeepFM
    from .models.ease import EASE
    from .models.knn import ContentKNN, DemographicKNN
    from .models.lightgbm import LightGBMRecommender
    from .models.mf import MatrixFactorization
    from .models.popularity import Popularity
    from .persistence import load
    from .retrieval.two_stage import TwoStageRecommender

__version__ = "0.1.0"

__all__ = [
    "AutoRec",
    "BaseRecommender",
    "ContentEASE",
    "ContentKNN",
    "ContrastiveRecommender",
    "DeepFM",
    "DemographicKNN",
    "EASE",
    "FeatureTable",
    "LightGBMRecommender",
    "MatrixFactorization",
    "Popularity",
    "TwoStageRecommender",
    "__version__",
    "load",
]

_HOMES = {
    "AutoRec": "recsys.models.autorec",
    "BaseRecommender": "recsys.base",
    "ContentEASE": "recsys.models.content",
    "ContentKNN": "recsys.models.knn",
    "ContrastiveRecommender": "recsys.models.contrastive",
    "DeepFM": "recsys.models.deepfm",
    "DemographicKNN": "recsys.models.knn",
    "EASE": "recsys.models.ease",
    "FeatureTable": "recsys.features",
    "LightGBMRecommender": "recsys.models.lightgbm",
    "MatrixFactorization": "recsys.models.mf",
    "Popularity": "recsys.models.popularity",
    "TwoStageRecommender": "recsys.retrieval.two_stage",
    "load": "recsys.persistence",
}
_SUBMODULES = ("datasets", "evaluation", "exceptions", "retrieval", "serving")


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _SUBMODULES:
        value = import_module(f"recsys.{name}")
    else:
        raise AttributeError(f"module 'recsys' has no attribute {name!r}")
    # The next access finds it without coming here.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
