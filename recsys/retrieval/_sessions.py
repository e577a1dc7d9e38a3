"""Runs the graphs of a bundle by ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.exceptions import CorruptModelError, PersistenceError

__all__ = ["GraphRunner"]


class GraphRunner:
    """A graph that is made ready when it is first asked, by any number of threads.

    Parameters
    ----------
    state : dict
        ``graph``, as ONNX stores it, and ``tables``, the names of those that it takes.
    tables : dict of str to ndarray
        Which the session looks at where they are, and does not copy.
    """

    def __init__(self, state: dict[str, Any], tables: Mapping[str, npt.NDArray[Any]]) -> None:
        self._graph: npt.NDArray[np.uint8] = state["graph"]
        self._tables = {name: tables[name] for name in state["tables"]}
        self._making = threading.Lock()
        self._session: Any = None

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
        """The outputs, by name; inputs that the graph does not look at are passed over."""
        session = self.make()
        try:
            found = session.run(None, {name: inputs[name] for name in self._inputs})
        # What it raises has no base of its own.
        except Exception as error:
            raise CorruptModelError(
                f"A graph of the bundle does not fit the rest of it ({type(error).__name__}: {error}); expected what "
                f"`export` wrote: export it again."
            ) from error
        return dict(zip(self._outputs, found, strict=True))

    def make(self) -> Any:
        """The session of ONNX Runtime; ValueError where it refuses the graph."""
        with self._making:
            if self._session is None:
                session = _session(self._graph, self._tables)
                self._inputs: list[str] = [each.name for each in session.get_inputs()]
                self._outputs: list[str] = [each.name for each in session.get_outputs()]
                # What is last tells that all is there.
                self._session = session
            return self._session


def _session(graph: npt.NDArray[np.uint8], tables: dict[str, npt.NDArray[Any]]) -> Any:
    """The graph, with its tables where they are mapped."""
    try:
        import onnxruntime
    except ImportError as error:
        raise PersistenceError(
            "A bundle is run by the package `onnxruntime`, which is missing: pip install 'recsys[serve]'."
        ) from error
    options = onnxruntime.SessionOptions()
    # Requests run beside each other; one is too small to be shared out.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Packed anew, tables would be copied.
    options.add_session_config_entry("session.disable_prepacking", "1")
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(table) for table in tables.values()]
    options.add_external_initializers(list(tables), values)
    try:
        return onnxruntime.InferenceSession(graph.tobytes(), options, providers=["CPUExecutionProvider"])
    # What it raises has no base of its own.
    except Exception as error:
        raise ValueError(f"a graph that ONNX Runtime refuses: {error}") from error
