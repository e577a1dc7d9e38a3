"""Serve a model without what it was trained with: `load_bundle` needs NumPy, FAISS and ONNX Runtime alone.

A bundle is what `model.export` writes: the user side of the model as an ONNX graph, and the item side as another, the
vectors of items, labels, encoders of features and context, and, unless they were left out, the users of `fit` with
their histories and features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys.exceptions import CorruptModelError, PersistenceError
from recsys.persistence import read_directory, read_manifest
from recsys.retrieval._answering import Recommended, SimilarItems
from recsys.retrieval._checking import check_state
from recsys.retrieval._editing import CLASS, EditableBundle
from recsys.retrieval._explaining import Explained, ExplainingBundle, Reached
from recsys.retrieval._listing import ListingBundle

__all__ = ["Bundle", "CLASS", "Explained", "Reached", "Recommended", "SimilarItems", "load_bundle"]


class Bundle(EditableBundle, ExplainingBundle, ListingBundle):
    """A model that serves, as `load_bundle` returns it; requests and changes may come from any number of threads.

    Attributes
    ----------
    model : str
        The class of the model.
    n_items : int
        How many items there are now.
    n_users : int
        How many users of `fit` it knows; 0 where they were left out.
    """

    def __repr__(self) -> str:
        return f"Bundle({self.model}: {self.n_items} items, {self.n_users} users)"


def load_bundle(path: Any) -> Bundle:
    """Load what `model.export` wrote; neither pandas, SciPy, scikit-learn, torch nor lightgbm is imported.

    Every byte is checked. Arrays stay in their file, which is mapped into memory: processes share them.

    Parameters
    ----------
    path : path-like
        The directory.

    Returns
    -------
    Bundle

    Raises
    ------
    PersistenceError
        If there is no bundle at `path`, or `onnxruntime` is missing.
    CorruptModelError
        If a file is missing, truncated or altered.
    SchemaVersionError
        If the bundle was written by a newer release.

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> from recsys import Popularity
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Popularity().fit(pd.DataFrame({"user_id": [1, 2], "item_id": ["tea", "tea"]})).export(folder)
    ...     load_bundle(folder)
    Bundle(Popularity: 1 items, 2 users)
    """
    _refuse_other_class(read_manifest(path), path)
    state, manifest = read_directory(path, mapped_from=0)
    # A save may have come between.
    _refuse_other_class(manifest, path)
    try:
        check_state(state)
        return Bundle(state, manifest)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CorruptModelError(
            f"The files in {Path(path)} match their checksums but are no bundle ({type(error).__name__}: {error}); "
            f"expected what `export` wrote."
        ) from error


def _refuse_other_class(manifest: dict[str, Any], path: Any) -> None:
    if manifest.get("class") != CLASS:
        raise PersistenceError(
            f"{Path(path)} holds a saved {manifest.get('class')}; expected a bundle: write one with `model.export`."
        )
