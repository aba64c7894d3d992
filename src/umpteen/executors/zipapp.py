"""The part of umpteen that travels, as one file for machines that have only `python3`.

An ordinary zip file, the same bytes for the same version, so that its digest names it. For
engines it is put into the text of a module, `runner.engine_worker`, that starts the runner.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import io
import marshal
import os
import zipfile
from collections.abc import Iterable
from importlib.machinery import SourceFileLoader
from typing import NamedTuple

__all__ = ["TRAVELS", "Carrier", "Zipapp", "build_carrier", "build_compiled_zipapp", "build_zipapp"]

# What the runner is made of: standard library alone, Python 3.9. `pyproject.toml` says the same to
# ruff.
TRAVELS = ("errors", "_version", "model", "store", "system", "runner")

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip file knows


class Zipapp(NamedTuple):
    """A zip file, and the digest that names it."""

    content: bytes
    digest: str


class Carrier(NamedTuple):
    """The text of a module, and a name for it that no other version has."""

    name: str
    text: str


@functools.cache
def build_carrier() -> Carrier:
    """What engines carry to workers: see `runner/engine_worker.py`."""
    path = os.path.join(_ROOT, "runner", "engine_worker.py")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    packed = build_zipapp()
    text += f'\nDIGEST = "{packed.digest}"\n'
    text += f'RUNNER = "{base64.b64encode(packed.content).decode()}"\n'
    digest = hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
    return Carrier(f"umpteen_carrier_{digest}", text)


@functools.cache
def build_zipapp() -> Zipapp:
    """The runner of this copy of umpteen."""
    content = _pack([])
    return Zipapp(content, hashlib.blake2b(content, digest_size=10).hexdigest())


@functools.cache
def build_compiled_zipapp() -> Zipapp:
    """The same, with what this Python has compiled: there is no place to keep that beside a zip.

    Another version of Python passes it over and compiles the source at each start.
    """
    compiled = [(f"umpteen/{path}c", _compile(f"{_ROOT}/{path}")) for path in _list_files()]
    # The same source may be compiled to bytes that differ.
    named = build_zipapp().content + importlib.util.MAGIC_NUMBER
    return Zipapp(_pack(compiled), hashlib.blake2b(named, digest_size=10).hexdigest())


def _pack(more: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip file of what travels and of some more: names and contents."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry("umpteen/__init__.py"), "")
        for path in _list_files():
            with open(f"{_ROOT}/{path}", "rb") as file:
                archive.writestr(_entry(f"umpteen/{path}"), file.read())
        for name, content in more:
            archive.writestr(_entry(name), content)
    return packed.getvalue()


def _compile(path: str) -> bytes:
    """A .pyc file that is not checked against its source, in the format of PEP 552."""
    with open(path, "rb") as file:
        digest = importlib.util.source_hash(file.read())
    code = SourceFileLoader("compiled", path).get_code("compiled")
    flags = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + flags + digest + marshal.dumps(code)


def _list_files() -> list[str]:
    """The files of what travels, by their paths in the package, in a lasting order."""
    found = [f"{name}.py" for name in TRAVELS if not os.path.isdir(f"{_ROOT}/{name}")]
    for name in TRAVELS:
        for folder, _, files in os.walk(f"{_ROOT}/{name}"):
            place = os.path.relpath(folder, _ROOT)
            found += [f"{place}/{file}" for file in files if file.endswith(".py")]
    return sorted(found)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
