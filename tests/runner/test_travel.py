"""The part that travels runs on a machine that has `python3`, 3.9 or newer, and nothing else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from umpteen.executors import zipapp

SRC = Path(__file__).parents[2] / "src"
OLDEST = (3, 9)


def _list_modules() -> Iterator[str]:
    for name in zipapp.TRAVELS:
        place = SRC / "umpteen" / name
        for path in place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]:
            yield ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


TRAVELS = set(_list_modules())
# What a module may import beside that, in functions alone: it says so where it is missing.
PACKAGES = {
    "umpteen.runner.engine_worker": {"dask", "distributed"},
    "umpteen.store.backends.fsspec": {"fsspec.asyn"},
    "umpteen.store.backends.fsspec_kinds": {"fsspec", "saturnfs.schemas.base"},
    "umpteen.store.backends.opening": {"fsspec"},
    "umpteen.store.backends.s3_client": {
        "aiobotocore.config",
        "aiobotocore.session",
        "botocore",
        "fsspec.config",
    },
    "umpteen.store.backends.s3_errors": {"aiohttp", "botocore", "botocore.exceptions"},
    "umpteen.store.backends.sftp": {"asyncssh", "asyncssh.sftp"},
    "umpteen.store.backends.sftp_connection": {"asyncssh"},
}
# What a module may take from the standard library of today that 3.9 does not have.
NEWER_MODULES = {"annotationlib", "compression", "tomllib"}
NEWER_NAMES = {
    *("EncodingWarning", "ExceptionGroup", "BaseExceptionGroup", "NoneType", "Self", "StrEnum"),
    *("TaskGroup", "TypeAlias", "UTC", "aclosing", "aiter", "anext", "assert_never", "batched"),
    *("bit_count", "file_digest", "orig_argv", "override", "pairwise", "stdlib_module_names"),
}
NEWER_ARGUMENTS = {("zip", "strict"), ("dataclass", "slots"), ("dataclass", "kw_only")}
TYPES = {"bool", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"}


def _path(module: str) -> Path:
    path = SRC.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


# By hand, as vermin finds none of `X | Y` at run time, or with its union types takes every `|`
# of numbers and sets, and all annotations that nobody evaluates, for one.
def find_newer(text: str) -> list[str]:
    """What Python 3.9 could not run, one line each."""
    try:
        tree = ast.parse(text, feature_version=OLDEST)
    except SyntaxError as error:
        return [f"line {error.lineno}: {error.msg}"]
    annotations = {id(part) for root in _find_annotations(tree) for part in ast.walk(root)}
    found = [
        f"line {getattr(node, 'lineno', 0)}: {fault}"
        for node in ast.walk(tree)
        if id(node) not in annotations and (fault := _judge(node))
    ]
    if annotations and "annotations" not in _find_future(tree):
        found.append("from __future__ import annotations is missing")
    return found


def find_foreign(text: str) -> set[str]:
    """Imports that are neither of the standard library nor of what travels along."""
    own_library = sys.stdlib_module_names - NEWER_MODULES
    return {
        name
        for name in _find_imports(ast.parse(text))
        if name.partition(".")[0] not in own_library and name not in TRAVELS
    }


def _judge(node: ast.AST) -> str | None:
    if isinstance(node, ast.Match):
        return "match"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return "X | Y at run time" if _is_type(node.left) or _is_type(node.right) else None
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func).rpartition(".")[2]
        newer = [word.arg for word in node.keywords if (called, word.arg) in NEWER_ARGUMENTS]
        return f"{called}({newer[0]}=)" if newer else None
    name = getattr(node, "id", None) or getattr(node, "attr", None)
    if isinstance(node, ast.alias):
        name = node.name
    return name if name in NEWER_NAMES else None


def _is_type(node: ast.expr) -> bool:
    if isinstance(node, ast.Subscript):
        return _is_type(node.value)
    if isinstance(node, ast.Constant):
        return node.value is None
    # Capitalised words are classes; `re.A | re.M` and a set `seen | new` are not.
    return isinstance(node, ast.Name) and (
        node.id in TYPES or re.match("[A-Z][A-Za-z]*[a-z]", node.id) is not None
    )


def _find_annotations(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if (annotation := getattr(node, field, None)) is not None:
                yield annotation


def _find_future(tree: ast.Module) -> set[str]:
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {a.name for node in nodes if node.module == "__future__" for a in node.names}


def _find_imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or "."
            whole = [f"{source}.{alias.name}" for alias in node.names]
            yield from (name if name in TRAVELS else source for name in whole)


def test_travel_runner_is_there() -> None:
    assert {"umpteen.runner.main", "umpteen.runner.lanes.lane"} < TRAVELS


@pytest.mark.parametrize("module", ["umpteen", *sorted(TRAVELS)])
def test_travel_module_is_python_of_old_machines(module: str) -> None:
    assert find_newer(_path(module).read_text()) == []


@pytest.mark.parametrize("module", sorted(TRAVELS))
def test_travel_module_imports_nothing_else(module: str) -> None:
    assert find_foreign(_path(module).read_text()) == PACKAGES.get(module, set())


def test_travel_runner_starts_without_packages(oldest_python: str) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(SRC)!r})\n"
        f"import {', '.join(sorted(TRAVELS))}\n"
        "print({'msgspec', 'click', 'rich', 'yaml', 'fsspec'} & set(sys.modules))"
    )
    done = subprocess.run(
        [oldest_python, "-S", "-E", "-B", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_travel_zip_that_another_python_compiled_starts(oldest_python: str, tmp_path: Path) -> None:
    path = tmp_path / "runner.zip"
    path.write_bytes(zipapp.build_compiled_zipapp().content)
    program = f"import sys; sys.path.insert(0, {str(path)!r}); import umpteen.runner.main"
    done = subprocess.run(
        [oldest_python, "-S", "-E", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "text",
    [
        "match x:\n    case 1: pass",
        "isinstance(x, int | str)",
        "Answer = Task | None",
        "def f(x: int | None): pass",
        "for a, b in zip(x, y, strict=True): pass",
        "from enum import StrEnum",
        "try: pass\nexcept* ValueError: pass",
    ],
)
def test_travel_newer_python_is_found(text: str) -> None:
    assert find_newer(text)


@pytest.mark.parametrize(
    "text",
    [
        "from __future__ import annotations\ndef f(x: int | None) -> str | None: pass",
        "from __future__ import annotations\nclass A:\n    b: Task | None = None",
        "os.open(path, os.O_RDONLY | os.O_CLOEXEC)",
        "seen |= new; both = seen | new",
        "if (n := len(x)) > 1: pass",
    ],
)
def test_travel_older_python_passes(text: str) -> None:
    assert find_newer(text) == []


@pytest.mark.parametrize(
    "text", ["import msgspec", "from umpteen.planning.plan import x", "import tomllib"]
)
def test_travel_foreign_import_is_found(text: str) -> None:
    assert find_foreign(text)
