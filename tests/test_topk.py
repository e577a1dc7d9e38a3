from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import config_context
from threadpoolctl import ThreadpoolController, threadpool_limits

from recsys import topk
from recsys._sparse import Csr, pattern
from recsys.exceptions import InvalidInputError, InvalidTypeError
from recsys.topk import TopK, row_chunks, run_on_threads, single_threaded_blas, top_k, top_k_chunks

INF = np.inf


def reference(scores: Any, k: int) -> TopK:
    """A full stable sort of each row, in plain Python."""
    n, m = scores.shape
    k = min(k, m)
    answer = TopK(np.full((n, k), -1), np.full((n, k), -INF, scores.dtype), np.zeros(n, np.int64))
    for i, row in enumerate(scores.tolist()):
        best = [j for j in sorted(range(m), key=lambda j: (-row[j], j)) if row[j] > -INF][:k]
        answer.columns[i, : len(best)] = best
        answer.values[i, : len(best)] = scores[i, best]
        answer.lengths[i] = len(best)
    return answer


def assert_same(got: TopK, expected: TopK) -> None:
    for name, one, other in zip(TopK._fields, got, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


def assert_identical(got: TopK, expected: TopK) -> None:
    assert [part.tobytes() for part in got] == [part.tobytes() for part in expected]


# Few distinct values make ties; many columns and a small k make blocks.
VALUES = st.sampled_from([-INF, -1.0, 0.0, -0.0, 0.5, 1.0, 2.0, 3.0, INF])
SHAPES = st.tuples(st.integers(0, 6), st.integers(0, 90))


@given(
    hnp.arrays(st.sampled_from([np.float32, np.float64]), SHAPES, elements=VALUES, fill=VALUES),
    st.integers(1, 100),
)
@example(np.zeros((3, 300), dtype=np.float32), 2)
@example(np.full((2, 300), -INF, dtype=np.float32), 2)
def test_top_k_is_a_stable_sort(scores: Any, k: int) -> None:
    got = top_k(scores, k)
    assert_same(got, reference(scores, k))
    assert got.columns.dtype == got.lengths.dtype == np.int64
    assert got.values.dtype == scores.dtype


@given(st.integers(0, 10_000), st.integers(1, 700), st.integers(1, 40), st.floats(0, 1))
def test_top_k_of_continuous_scores(seed: int, m: int, k: int, share_masked: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((4, m), dtype=np.float32)
    scores[rng.random((4, m)) < share_masked] = -INF
    assert_same(top_k(scores, k), reference(scores, k))


@pytest.mark.parametrize("order", ["ascending", "descending", "one block", "transposed"])
def test_top_k_where_blocks_are_of_no_use(order: str) -> None:
    scores = np.sort(np.random.default_rng(0).random((5, 2_000), dtype=np.float32), axis=1)
    if order == "descending":
        scores = scores[:, ::-1]
    elif order == "one block":
        # The high scores are all a multiple of the number of blocks apart.
        scores = np.concatenate([scores[:, i :: topk.BLOCK_COLUMNS] for i in range(topk.BLOCK_COLUMNS)], axis=1)
    elif order == "transposed":
        scores = np.asfortranarray(scores)
    assert_same(top_k(scores, 10), reference(scores, 10))


def test_crowded_rows_take_the_lowest_tied_columns() -> None:
    scores = np.zeros((3, 1_000), dtype=np.float32)
    scores[1, [500, 999]] = 1
    scores[2] = np.random.default_rng(0).permutation(1_000)
    columns, values, lengths = top_k(scores, 4)
    assert columns[0].tolist() == [0, 1, 2, 3]
    assert columns[1].tolist() == [500, 999, 0, 1]
    assert values[2].tolist() == [999, 998, 997, 996]
    assert lengths.tolist() == [4, 4, 4]


def test_top_k_leaves_its_input_alone() -> None:
    scores = np.random.default_rng(0).random((3, 500), dtype=np.float32)
    before = scores.copy()
    top_k(scores, 3)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("k", [1, 400])
@pytest.mark.parametrize("column", [0, 399])
def test_nan_is_refused(k: int, column: int) -> None:
    scores = np.ones((4, 400), dtype=np.float32)
    scores[[1, 3], column] = np.nan
    with pytest.raises(InvalidInputError, match=r"`scores` holds NaN in 2 rows \(1, 3\); expected numbers"):
        top_k(scores, k)


def no_entries(n: int, m: int) -> Csr:
    return Csr(np.zeros((n, m), dtype=np.float32))


def test_bad_scores_and_k() -> None:
    scores: Any = np.ones((2, 3), dtype=np.float32)
    k: Any
    with pytest.raises(InvalidInputError, match="`k` is 0; expected at least 1"):
        top_k(scores, 0)
    for k in (1.5, True, "1"):
        with pytest.raises(InvalidTypeError, match=f"`k` is {k!r}; expected a whole number"):
            top_k(scores, k)
    with pytest.raises(InvalidTypeError, match="`scores` is of type int64; expected an array of floats"):
        top_k(scores.astype(np.int64), 1)
    with pytest.raises(InvalidTypeError, match="`scores` is of type list"):
        top_k(scores.tolist(), 1)
    with pytest.raises(InvalidInputError, match="`scores` has 1 dimensions"):
        top_k(scores[0], 1)


def test_bad_requests() -> None:
    def score_chunk(rows: slice) -> Any:
        return np.ones((2, 3), dtype=np.float32)

    with pytest.raises(InvalidInputError, match=r"`exclude` has the shape \(2, 4\); expected \(2, 3\)"):
        top_k_chunks(score_chunk, 2, 3, 1, exclude=no_entries(2, 4))
    with pytest.raises(InvalidInputError, match=r"`candidates` has the shape \(1, 3\); expected \(2, 3\)"):
        top_k_chunks(score_chunk, 2, 3, 1, candidates=no_entries(1, 3))
    allowed: Any
    for allowed in (np.ones(2, dtype=bool), np.ones(3)):
        with pytest.raises(InvalidInputError, match=f"`allowed` is {allowed.dtype} of shape"):
            top_k_chunks(score_chunk, 2, 3, 1, allowed=allowed)
    budget: Any
    for budget in (0, -1.0, float("nan"), INF):
        with pytest.raises(InvalidInputError, match=f"`working_memory` is {budget}; expected a finite number of MiB"):
            top_k_chunks(score_chunk, 2, 3, 1, working_memory=budget)
    for budget in ("1", True):
        with pytest.raises(InvalidTypeError, match=f"`working_memory` is {budget!r}; expected a number"):
            top_k_chunks(score_chunk, 2, 3, 1, working_memory=budget)
    with pytest.raises(InvalidInputError, match=r"`score_chunk` returned the shape \(2, 3\); expected \(2, 4\)"):
        top_k_chunks(score_chunk, 2, 4, 1)


def pairs(rng: np.random.Generator, shape: tuple[int, int], density: float) -> Csr:
    """Random entries, half of them explicit zeros."""
    matrix = Csr(rng.random(shape) < density, dtype=np.float32)
    matrix.data[::2] = 0
    return matrix


@given(
    st.integers(0, 10_000),
    st.integers(0, 30),
    st.integers(1, 60),
    st.integers(1, 8),
    st.sets(st.sampled_from(["exclude", "allowed", "candidates"])),
    st.sampled_from([1e-6, 0.01, 1.0, None]),
    st.sampled_from([None, 3]),
)
def test_chunks_mask_and_agree_with_the_whole(
    seed: int, n: int, m: int, k: int, masks: set[str], budget: float | None, n_jobs: int | None
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, (n, m)).astype(np.float32)
    arguments: dict[str, Any] = {
        "exclude": pairs(rng, (n, m), 0.3),
        "candidates": pairs(rng, (n, m), 0.5),
        "allowed": rng.random(m) < 0.7,
    }
    expected = scores.copy()
    for i, j in np.ndindex(n, m):
        if (
            ("exclude" in masks and j in arguments["exclude"][i].indices)
            or ("candidates" in masks and j not in arguments["candidates"][i].indices)
            or ("allowed" in masks and not arguments["allowed"][j])
        ):
            expected[i, j] = -INF
    chosen = {name: arguments[name] for name in masks}
    before = scores.copy()
    got = top_k_chunks(lambda rows: scores[rows], n, m, k, working_memory=budget, n_jobs=n_jobs, **chosen)
    assert_same(got, reference(expected, k))
    np.testing.assert_array_equal(scores, before, err_msg="a view was written to")


def test_scores_may_be_read_only_float64_and_transposed() -> None:
    scores = np.random.default_rng(0).random((7, 40))
    expected = reference(scores.astype(np.float32), 3)
    exclude = no_entries(7, 40)
    constant = np.broadcast_to(scores[0], (7, 40))
    assert_same(top_k_chunks(lambda rows: scores[rows].copy(), 7, 40, 3, exclude=exclude), expected)
    assert_same(top_k_chunks(lambda rows: np.asfortranarray(scores[rows]), 7, 40, 3, exclude=exclude), expected)
    same = top_k_chunks(lambda rows: constant[rows], 7, 40, 3, allowed=np.arange(40) > 3)
    assert (same.columns == same.columns[0]).all()
    assert same.columns.min() > 3


def test_the_answer_is_the_same_bit_for_bit_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    users = rng.standard_normal((3_000, 24), dtype=np.float32)
    items = rng.standard_normal((700, 24), dtype=np.float32)
    seen = pairs(rng, (3_000, 700), 0.05)

    def answer(n_jobs: int | None) -> TopK:
        # A budget of 8 chunks at a time at most, and more chunks than that.
        return top_k_chunks(
            lambda rows: users[rows] @ items.T, 3_000, 700, 10, exclude=seen, n_jobs=n_jobs, working_memory=4
        )

    one = answer(None)
    for n_jobs in (1, 2, 5):
        assert_identical(answer(n_jobs), one)
    assert not np.take_along_axis(pattern(seen).toarray(), one.columns, axis=1).any()


@pytest.mark.parametrize("k", [10, 900])
@pytest.mark.parametrize("scores", ["random", "constant"])
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_memory_stays_under_the_budget(k: int, scores: str, n_jobs: int) -> None:
    n, m = 400, 3_000
    exclude = pairs(np.random.default_rng(0), (n, m), 0.5)
    candidates = Csr(np.ones((n, m), dtype=np.float32))
    rng = np.random.default_rng(0)
    largest = []

    def score_chunk(rows: slice) -> Any:
        shape = (rows.stop - rows.start, m)
        largest.append(shape[0])
        return rng.random(shape, dtype=np.float32) if scores == "random" else np.zeros(shape, dtype=np.float32)

    def run(budget: float) -> TopK:
        return top_k_chunks(
            score_chunk, n, m, k, exclude=exclude, candidates=candidates, n_jobs=n_jobs, working_memory=budget
        )

    run(3)
    for budget in (1, 3, 8):
        largest.clear()
        tracemalloc.start()
        answer = run(budget)
        peak = tracemalloc.get_traced_memory()[1] - sum(part.nbytes for part in answer)
        tracemalloc.stop()
        assert peak < budget * 2**20 + 2**17, f"{peak / 2**20:.2f} MiB of {budget}"
        # It is used, too.
        assert max(largest) * m * 4 > budget * 2**20 / 40


def test_the_budget_is_that_of_scikit_learn() -> None:
    sizes = []

    def score_chunk(rows: slice) -> Any:
        sizes.append(rows.stop - rows.start)
        return np.ones((sizes[-1], 1_000), dtype=np.float32)

    with config_context(working_memory=0.001):
        assert top_k_chunks(score_chunk, 3, 1_000, 1).columns.tolist() == [[0], [0], [0]]
    assert sizes == [1, 1, 1]
    sizes.clear()
    top_k_chunks(score_chunk, 3, 1_000, 1)
    assert sizes == [3]


def test_empty_shapes() -> None:
    def empty(rows: slice) -> Any:
        return np.empty((rows.stop - rows.start, 0), dtype=np.float32)

    assert top_k_chunks(empty, 0, 5, 3).columns.shape == (0, 3)
    no_columns = top_k_chunks(empty, 2, 0, 3)
    assert no_columns.columns.shape == (2, 0)
    assert no_columns.lengths.tolist() == [0, 0]


def test_row_chunks_cover_the_rows() -> None:
    with config_context(working_memory=1):
        chunks = list(row_chunks(1_000, 1_000))
    assert [row for chunk in chunks for row in range(chunk.start, chunk.stop)] == list(range(1_000))
    assert {chunk.stop - chunk.start for chunk in chunks[:-1]} == {131}
    assert list(row_chunks(0, 10)) == []


def blas_threads() -> set[int]:
    pools = [pool for pool in ThreadpoolController().info() if pool["user_api"] == "blas"]
    # With OpenMP, as in FAISS, each thread has a limit of its own.
    return {pool["num_threads"] for pool in pools if pool.get("threading_layer") != "openmp"}


def test_blas_keeps_to_one_thread_until_the_last_context_is_left() -> None:
    before = blas_threads()
    first, second = single_threaded_blas(), single_threaded_blas()
    first.__enter__()
    second.__enter__()
    assert blas_threads() == {1}
    first.__exit__(None, None, None)
    assert blas_threads() == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == before


def test_each_thread_gets_its_own_limit_back() -> None:
    code = """if True:
        import threading
        import faiss
        from recsys.topk import single_threaded_blas
        faiss.omp_set_num_threads(2)
        leave = threading.Event()
        def hold():
            with single_threaded_blas():
                entered.set()
                leave.wait(30)
        entered = threading.Event()
        other = threading.Thread(target=hold)
        with single_threaded_blas():
            other.start()
            entered.wait(30)
        leave.set()
        other.join()
        assert faiss.omp_get_max_threads() == 2, faiss.omp_get_max_threads()
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_threads_pass_errors_on(n_jobs: int | None) -> None:
    before = blas_threads()

    def fail(task: int) -> None:
        raise ZeroDivisionError(task)

    with pytest.raises(ZeroDivisionError):
        run_on_threads(fail, [1, 2, 3], n_jobs)
    assert blas_threads() == before


def test_tasks_run_at_the_same_time() -> None:
    meet = threading.Barrier(2, timeout=30)
    met = []
    run_on_threads(lambda task: met.append((task, meet.wait() >= 0)), range(2), n_jobs=2)
    assert sorted(met) == [(0, True), (1, True)]


def test_blas_is_held_and_let_go_whichever_threads_ask() -> None:
    before, inside = blas_threads(), []

    def hold() -> None:
        with single_threaded_blas():
            inside.append(blas_threads())

    # A limit that somebody set on this thread, and did not lift, is no claim on it for good.
    threadpool_limits(max(before))
    hold()
    other = threading.Thread(target=hold)
    other.start()
    other.join()
    assert inside == [{1}, {1}]
    assert blas_threads() == before
    entered, leave = threading.Event(), threading.Event()

    def hold_on() -> None:
        with single_threaded_blas():
            entered.set()
            leave.wait(10)

    with single_threaded_blas():
        late = threading.Thread(target=hold_on)
        late.start()
        assert entered.wait(10)
    # The first to come has gone, the other still holds.
    assert blas_threads() == {1}
    leave.set()
    late.join()
    assert blas_threads() == before
