"""The code's shape: few packages that import little of each other, no long module or class.

What is over a limit already is named with what it has now, so that nothing grows: who makes
it less lowers the number, or takes the name out.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator

from tests.docs.pages import ROOT

PACKAGE = ROOT / "src" / "umpteen"
TOP_MOST = 25
IMPORTS_MOST = 100
MODULE_LINES_MOST = 450
LONG_MODULES: dict[str, int] = {}
CLASS_LINES_MOST = 300
LONG_CLASSES: dict[str, int] = {}
ANY_DICTS_MOST = 11


@functools.cache
def list_modules() -> dict[str, ast.Module]:
    """Every module by its path in the package."""
    return {
        str(path.relative_to(PACKAGE)): ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def name_top(path: str) -> str:
    """The package, or the module at the top, that a module is part of."""
    return path.partition("/")[0].removesuffix(".py")


def list_imports(tree: ast.Module) -> Iterator[str]:
    """What a module imports of this package, each by its package or module at the top."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "umpteen":
            names = [f"umpteen.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (name.split(".")[1] for name in names if name.startswith("umpteen."))


def list_signatures(tree: ast.Module) -> Iterator[ast.expr]:
    """What functions say of their arguments and results."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = node.args
            every = [*own.posonlyargs, *own.args, *own.kwonlyargs, own.vararg, own.kwarg]
            told = [argument.annotation for argument in every if argument]
            yield from (annotation for annotation in [*told, node.returns] if annotation)


def test_top_has_few_packages_and_modules() -> None:
    assert len({name_top(path) for path in list_modules()}) <= TOP_MOST


def test_packages_import_little_of_each_other() -> None:
    pairs = {
        (name_top(path), imported)
        for path, tree in list_modules().items()
        for imported in list_imports(tree)
        # Everybody may use these two.
        if imported not in {name_top(path), "errors", "_version"}
    }
    assert len(pairs) <= IMPORTS_MOST, sorted(pairs)


def test_modules_are_short() -> None:
    lines = {path: len((PACKAGE / path).read_text().splitlines()) for path in list_modules()}
    over = {p: n for p, n in lines.items() if n > LONG_MODULES.get(p, MODULE_LINES_MOST)}
    assert over == {}


def test_classes_are_short() -> None:
    lines = {
        f"{path}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path, tree in list_modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    over = {c: n for c, n in lines.items() if n > LONG_CLASSES.get(c, CLASS_LINES_MOST)}
    assert over == {}


def test_signatures_say_what_a_dict_holds() -> None:
    found = [
        f"{path}:{annotation.lineno}"
        for path, tree in list_modules().items()
        for annotation in list_signatures(tree)
        if "dict[str, Any]" in ast.unparse(annotation)
    ]
    assert len(found) <= ANY_DICTS_MOST, found
