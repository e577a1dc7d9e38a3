"""Metrics, splits and statistics: who is better, where, and how sure we are.

Names arrive when they are first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.evaluation.beyond_accuracy import (
        cold_exposure,
        coverage,
        gini,
        intra_list_diversity,
        novelty,
        popularity_lift,
    )
    from recsys.evaluation.cold_splits import BothColdSplit, ItemColdHotSplit, ItemColdSplit, UserColdSplit
    from recsys.evaluation.evaluation import Evaluation
    from recsys.evaluation.evaluator import Evaluator
    from recsys.evaluation.metrics import (
        average_precision,
        hit_matrix,
        hit_rate,
        mrr,
        ndcg,
        precision,
        recall,
        recall_calibrated,
    )
    from recsys.evaluation.protocols import PROTOCOLS, Protocol, protocol
    from recsys.evaluation.ranking import ranking_metrics
    from recsys.evaluation.report import Report
    from recsys.evaluation.scenario import Split, check_leaks, entity_groups
    from recsys.evaluation.scorer import make_ranking_scorer
    from recsys.evaluation.scores import score_metrics
    from recsys.evaluation.splits import GlobalTimeSplit, LeaveLastOut, RandomSplit, SparseSubset
    from recsys.evaluation.statistics import (
        Interval,
        bootstrap_interval,
        holm,
        max_t_test,
        minimum_detectable_difference,
        paired_bootstrap,
        randomisation_test,
    )
    from recsys.evaluation.weights import field_weights

__all__ = [
    "BothColdSplit",
    "Evaluation",
    "Evaluator",
    "GlobalTimeSplit",
    "Interval",
    "ItemColdHotSplit",
    "ItemColdSplit",
    "LeaveLastOut",
    "PROTOCOLS",
    "Protocol",
    "RandomSplit",
    "Report",
    "SparseSubset",
    "Split",
    "UserColdSplit",
    "average_precision",
    "bootstrap_interval",
    "check_leaks",
    "cold_exposure",
    "coverage",
    "entity_groups",
    "field_weights",
    "gini",
    "hit_matrix",
    "hit_rate",
    "holm",
    "intra_list_diversity",
    "make_ranking_scorer",
    "max_t_test",
    "minimum_detectable_difference",
    "mrr",
    "ndcg",
    "novelty",
    "paired_bootstrap",
    "popularity_lift",
    "precision",
    "protocol",
    "randomisation_test",
    "ranking_metrics",
    "recall",
    "recall_calibrated",
    "score_metrics",
]

_HOMES = {
    "beyond_accuracy": "cold_exposure coverage gini intra_list_diversity novelty popularity_lift",
    "cold_splits": "BothColdSplit ItemColdHotSplit ItemColdSplit UserColdSplit",
    "evaluation": "Evaluation",
    "evaluator": "Evaluator",
    "metrics": "average_precision hit_matrix hit_rate mrr ndcg precision recall recall_calibrated",
    "protocols": "PROTOCOLS Protocol protocol",
    "ranking": "ranking_metrics",
    "report": "Report",
    "scenario": "Split check_leaks entity_groups",
    "scorer": "make_ranking_scorer",
    "scores": "score_metrics",
    "splits": "GlobalTimeSplit LeaveLastOut RandomSplit SparseSubset",
    "statistics": "Interval bootstrap_interval holm max_t_test minimum_detectable_difference paired_bootstrap "
    "randomisation_test",
    "weights": "field_weights",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
