"""Who may import whom. The table is the rule; the rest of this file only enforces it."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"

# A module imports only from lower levels, or from the same level in its own folder.
# `folder.*` is every module of the folder that has no line of its own.
LEVELS = [
    "_version errors forms screen stops streams task",
    # The stores stand beside `results.base`: they know words and leaves only, and `history`,
    # which plans are made from, reads them.
    "job settings process records job_files batch_file names ignores retries machine graph where identity results results.*",
    "formats formats.* handed_files history estimate behind plan cut batches landing removal status_codes past",
    "runner feed intake attempts recalls outgoing open_batches foreign others recorder lanes lane lease leftovers starts tickets adopt hand_in_lock delivery live work beside agent staging unpack zipapp keeper executors executors.base executors.engine executors.dask_connection",
    "executors.* hand_in status registry why cancelling verify",
    "lookup outcomes",
    "dispatch job_list report pulling split",
    "export sentences web web.*",
    "cli cli.*",
    "api __main__",
]
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names.split()}
# The modules of one level at the top of the package are one folder up to here ...
LAST_SHARED_LEVEL = 3
# ... and up to here the words and leaves are, wherever they live.
LAST_LEVEL_OF_WORDS = 1


def read_imports(src: Path) -> dict[str, set[str]]:
    """Each module of the package, and what it imports from it, in functions and for types too."""
    paths = {_name_module(path.relative_to(src)): path for path in src.rglob("*.py")}
    return {
        module: set(_find_imports(ast.parse(path.read_bytes()), set(paths)))
        for module, path in paths.items()
    }


def find_faults(imports: dict[str, set[str]]) -> list[str]:
    """What breaks the rule, one sentence each."""
    faults = [
        f"{module}: give it a level"
        for module in imports
        if module != "umpteen" and _level(module) is None
    ]
    for module, targets in imports.items():
        for target in targets - {module}:
            if fault := _judge(module, target):
                faults.append(f"{module} imports {target}: {fault}")
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        faults.append("a cycle: " + " <- ".join(error.args[1]))
    return sorted(faults)


def _judge(module: str, target: str) -> str | None:
    if target == "umpteen":
        return "nothing inside imports from the public face"
    if target.startswith("."):
        return "write the whole name"
    own, other = _level(module), _level(target)
    if module == "umpteen" or own is None or other is None:
        return None
    if other > own:
        return f"level {own} may not know level {other}"
    if other < own or own <= LAST_LEVEL_OF_WORDS:
        return None
    if _folder(module) != _folder(target):
        return f"both have level {own}, in different folders"
    if _folder(module) == "" and own > LAST_SHARED_LEVEL:
        return f"both have level {own}"
    if _folder(module) == "executors" and target != "umpteen.executors.base":
        return "executors do not know one another"
    return None


def _name_module(path: Path) -> str:
    return ".".join(("umpteen", *path.with_suffix("").parts[1:])).removesuffix(".__init__")


def _find_imports(tree: ast.Module, modules: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            whole = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in modules else source for name in whole]
        yield from (name for name in names if name.partition(".")[0] in ("umpteen", ""))


def _short(module: str) -> str:
    return module.removeprefix("umpteen.")


def _folder(module: str) -> str:
    name = _short(module)
    return name if f"{name}.*" in LEVEL_OF else name.rpartition(".")[0]


def _level(module: str) -> int | None:
    name = _short(module)
    return LEVEL_OF.get(name, LEVEL_OF.get(f"{name.rpartition('.')[0]}.*"))


def test_layers_hold() -> None:
    imports = read_imports(SRC)
    assert "umpteen.task" in imports, "the package is not where this test looks"
    assert find_faults(imports) == []


@pytest.mark.parametrize(
    ("module", "text", "fault"),
    [
        ("plan", "import umpteen.runner", "umpteen.plan imports umpteen.runner: level 2"),
        ("plan", "def f():\n    from umpteen import runner", "level 2 may not know level 3"),
        ("plan", "if TYPE_CHECKING:\n    from umpteen.cli.main import x", "level 2"),
        ("plan", "from umpteen.formats.native import x", "both have level 2, in different"),
        ("report", "from umpteen.dispatch import x", "both have level 6"),
        ("executors.slurm", "from umpteen.executors.local import x", "do not know one another"),
        ("dispatch", "from umpteen import Job", "nothing inside imports from the public face"),
        ("plan", "from . import job", "write the whole name"),
        ("utils", "", "umpteen.utils: give it a level"),
        ("pool.queue", "", "umpteen.pool.queue: give it a level"),
        ("lane", "import umpteen.lease", "a cycle: umpteen.lane <- umpteen.lease <- umpteen.lane"),
    ],
)
def test_layers_wrong_import_is_named(tmp_path: Path, module: str, text: str, fault: str) -> None:
    _write_module(tmp_path, "lease", "import umpteen.lane")
    for name in ("__init__", "runner", "dispatch", "executors.local", "formats.native"):
        _write_module(tmp_path, name, "")
    _write_module(tmp_path, module, text)
    assert any(fault in found for found in find_faults(read_imports(tmp_path)))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("task", "from umpteen.errors import InputError"),
        ("results.base", "import umpteen.names, umpteen.task"),
        ("runner", "from umpteen import lane"),
        ("formats.lines", "from umpteen.formats.native import x"),
        ("executors.local", "from umpteen.executors.base import x\nimport msgspec"),
        ("cli.run", "from umpteen.cli import main"),
    ],
)
def test_layers_right_import_passes(tmp_path: Path, module: str, text: str) -> None:
    for name in ("errors", "lane", "names", "formats.native", "executors.base", "cli.main"):
        _write_module(tmp_path, name, "")
    _write_module(tmp_path, module, text)
    assert find_faults(read_imports(tmp_path)) == []


def _write_module(src: Path, module: str, text: str) -> None:
    path = src.joinpath("umpteen", *module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
