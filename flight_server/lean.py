"""Keeps pandas out of processes that never use it."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoPandas(importlib.abc.MetaPathFinder):
    """Says that there is no pandas."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is left out of this process", name="pandas")
        return None


def without_pandas() -> None:
    """From here on, this process cannot import pandas.

    pyarrow imports pandas, where it is installed, as soon as a scalar is made, and datafusion makes
    one when it is imported: 1.1 s and 60 MB at every (re)start of the server (measured: 1.5 s
    against 0.4 s), for nothing. A process that has pandas already keeps it.
    """
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _NoPandas())
