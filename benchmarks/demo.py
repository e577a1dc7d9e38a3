"""What `make demo` serves: the flagship, fitted on MovieLens-100K.

``python -m benchmarks.demo FOLDER``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recsys import ContrastiveRecommender, FeatureTable
from recsys.datasets import fetch_movielens


def main(arguments: list[str] | None = None) -> None:
    """Write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the bundle is written")
    options = parser.parse_args(arguments)
    data = fetch_movielens("100k")
    model = ContrastiveRecommender(random_state=0)
    model.fit(
        data.interactions[["user_id", "item_id"]],
        user_features=FeatureTable(data.users),
        item_features=FeatureTable(data.items),
    )
    model.export(options.folder, metadata=data.items)


if __name__ == "__main__":
    main()
