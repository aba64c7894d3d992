"""The class that fsspec has for a scheme, loaded, and what it can do."""

from __future__ import annotations

import inspect
import os
import threading
from typing import Any

from umpteen.errors import SettingsError
from umpteen.model.variables import SATURN_BASE_URL, SATURN_TOKEN

__all__ = ["knows_parts", "list_exclusive", "load_kind"]

_VARIABLES = {"sfs": (SATURN_BASE_URL, SATURN_TOKEN)}  # that have no default
_SCHEMAS = threading.Lock()


def load_kind(scheme: str) -> Any:
    """The class of fsspec for a scheme; raises SettingsError where it cannot be loaded."""
    from fsspec import get_filesystem_class

    variables = _VARIABLES.get(scheme, ())
    if missing := [name for name in variables if not os.environ.get(name)]:
        raise SettingsError(
            f"results at {scheme}:// need {' and '.join(missing)} in the environment",
            "it is there on Saturn Cloud; elsewhere: export the address and a token of yours",
        )
    try:
        kind = get_filesystem_class(scheme)
        if scheme == "sfs":
            _build_schemas()
        return kind
    except ImportError as error:
        raise SettingsError(
            f"results at {scheme}:// need a package that is missing: {error}"
        ) from error
    except Exception as error:  # what a package does when it is loaded is its own affair
        reason = f"{type(error).__name__}: {error}"
        raise SettingsError(
            f"results at {scheme}://: their package cannot be loaded: {reason}"
        ) from error


def _build_schemas() -> None:
    """Have saturnfs build now what it builds when it is first used: two threads cannot at once."""
    from saturnfs.schemas.base import DataclassSchema

    with _SCHEMAS:
        for kind in DataclassSchema.__subclasses__():
            getattr(kind, "Schema", None)


def knows_parts(kind: Any) -> bool:
    """Whether a part of a file is read by opening it, at once: it needs no size before."""
    return not kind.async_impl and kind.cat_file is _fsspec().cat_file


def list_exclusive(kind: Any) -> dict[str, bool]:
    """The writes that may be told to make a new file, and whether each is sure to know the word.

    fsspec's own look first, and then write, so that they keep nobody apart.
    """
    found: dict[str, bool] = {}
    for name in ("pipe_file", "put_file"):
        call = getattr(kind, f"_{name}" if kind.async_impl else name)
        if call is not getattr(_fsspec(), name):
            taken = inspect.signature(call).parameters
            if "mode" in taken or any(each.kind is each.VAR_KEYWORD for each in taken.values()):
                found[name] = "mode" in taken
    return found


def _fsspec() -> Any:
    from fsspec import AbstractFileSystem

    return AbstractFileSystem
