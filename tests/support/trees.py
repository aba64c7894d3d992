"""Folders for tests: made from a mapping, read back as one, and random ones."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

__all__ = ["Link", "Program", "put_tree", "see_tree", "trees"]


class Link(str):
    """Where a link leads."""

    __slots__ = ()


class Program(bytes):
    """What is in a file that can be run."""

    __slots__ = ()


# Names to content: bytes, a Program, a Link, or a tree.
Tree = dict[str, Any]


def put_tree(folder: Path, tree: Tree) -> Path:
    """Make the folder, with all that is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = folder / name
        if isinstance(content, dict):
            put_tree(path, content)
        elif isinstance(content, Link):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
            path.chmod(0o755 if isinstance(content, Program) else 0o644)
    return folder


def see_tree(folder: Path) -> dict[str, Any]:
    """What is below a folder: modes and contents by path, links by where they lead."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        status = os.lstat(path)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            found[str(path.relative_to(folder))] = Link(os.readlink(path))
        elif stat.S_ISDIR(status.st_mode):
            found[str(path.relative_to(folder))] = mode
        else:
            found[str(path.relative_to(folder))] = (mode, path.read_bytes())
    return found


_letters = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
_names = st.text(_letters, min_size=1, max_size=40).filter(
    lambda name: name not in {".", "..", ".git"}
)
_odd_names = st.sampled_from(["a b", "a\nb", "ünï 名", "-rf", "'\"$(x)", "*", " ", "~", "x" * 255])
_contents = st.one_of(
    st.binary(max_size=2000), st.binary(max_size=50).map(Program), st.just(Link("a b"))
)
# Random trees, none of whose names is left out.
trees = st.recursive(
    st.dictionaries(st.one_of(_names, _odd_names), _contents, max_size=5),
    lambda inner: st.dictionaries(
        st.one_of(_names, _odd_names), st.one_of(_contents, inner), max_size=5
    ),
    max_leaves=8,
)
