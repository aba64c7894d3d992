"""The lines of .gitignore files, beside what git itself makes of them."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umpteen.submission.ignore import IgnoreRules

LINES = r"""
*.log !keep keep/ !keep/ /a a/b a/** **/b a/**/b !a/ [ab] [!a] [^b] ? ?? * !*/ !x.log a/* !a/b
** /* !/a b/ !b *e* a/b/ [a-c]* [c-a] [ a[ \a f\ / // ! **a a** a/**b a**/b **/ /**/ *** a/***/b
[[:alpha:]] [![:alpha:]] [[:digit:]x] [[:none:]] []a] [!]a] [\]a] [a\-c] [a-\c] [-a] [a-] [[:]
[[:a] \!keep # \# #b */b **/**/b a/*/b *\.log x.* [x].log !c.log ü* [ü] a\/b a**\/b a/[/]b a[!x]b
\** \**b
""".split()
NAMES = ["a", "b", "c.log", "x.log", "keep", "d e", "f", "ü", "#b", "!keep", "]", "-", "5"]

_lines = st.sampled_from([*LINES, "keep ", r"keep\ ", "d e", " ", "a\r", "b \r", "\\ ", r"d \e  "])
_rules = st.lists(_lines, min_size=1, max_size=5)
_paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
_folders = st.one_of(st.just(""), st.lists(st.sampled_from(NAMES), max_size=2).map("/".join))


def put(top: Path, paths: Sequence[str], files: Mapping[str, Sequence[str]]) -> None:
    for path in paths:
        try:
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).touch()
        except OSError:  # what is to be a folder is a file already, or the reverse
            continue
    for folder, content in files.items():
        if (top / folder).is_dir():
            (top / folder / ".gitignore").write_bytes("\n".join(content).encode())


def list_kept(
    top: Path, folder: str = "", above: tuple[tuple[int, IgnoreRules], ...] = ()
) -> Iterator[str]:
    """As staging goes: the deepest file that says something decides, ..."""
    if (file := top / folder / ".gitignore").exists():
        above = ((len(folder), IgnoreRules(file.read_bytes())), *above)
    for name in os.listdir(top / folder):
        path, is_folder = folder + name, (top / folder / name).is_dir()
        judged = [r.judge(os.fsencode(path[start:]), is_folder=is_folder) for start, r in above]
        if next((found for found in judged if found is not None), False):
            continue  # ... and what is left out is not gone into.
        yield from list_kept(top, path + "/", above) if is_folder else [path]


@pytest.fixture
def list_by_git(tmp_path: Path, need: Callable[[str], str]) -> Callable[[Path], set[str]]:
    """`list_by_git(folder)` is what git would take of the folder."""
    git, repository = need("git"), str(tmp_path / "repository")
    subprocess.run([git, "init", "-q", "--bare", repository], check=True)

    def list_by_git(top: Path) -> set[str]:
        options = ["--git-dir", repository, "--work-tree", str(top)]
        listing = ["ls-files", "-z", "--others", "--exclude-per-directory=.gitignore"]
        done = subprocess.run([git, *options, *listing], cwd=top, capture_output=True, check=True)
        return set(os.fsdecode(done.stdout).split("\0")) - {""}

    return list_by_git


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    paths=st.lists(_paths, min_size=5, max_size=30),
    files=st.dictionaries(_folders, _rules, min_size=1, max_size=3),
)
def test_rules_of_any_files_are_those_of_git(
    paths: list[str],
    files: dict[str, list[str]],
    list_by_git: Callable[[Path], set[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    top = tmp_path_factory.mktemp("tree")
    put(top, paths, files)
    assert set(list_kept(top)) == list_by_git(top)


def test_rules_of_every_line_alone_are_those_of_git(
    list_by_git: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    top, parts = tmp_path / "tree", itertools.product(NAMES, ["a", "b", "x.log"], ["b", "f"])
    put(top, ["/".join(path) for path in parts], {})
    for line in LINES:
        put(top, [], {"": ["a/", "*.log", line]})
        assert set(list_kept(top)) == list_by_git(top), line


@pytest.mark.parametrize(
    ("content", "path", "outcome"),
    [
        ("*.log", "a/x.log", True),
        ("*.log", "a/x.txt", None),
        ("*.log\n!x.log", "x.log", False),
        ("\ufeff*.log\r\n# no\r\n", "x.log", True),
        ("/a", "b/a", None),
        ("a/", "a", None),
        ("data/**/raw", "data/raw", True),
        ("[z-", "z", None),
        ("", "a", None),
    ],
)
def test_rules_say_left_out_taken_in_or_nothing(
    content: str, path: str, *, outcome: bool | None
) -> None:
    assert IgnoreRules(content.encode()).judge(path.encode(), is_folder=False) is outcome


def test_rules_of_bytes_that_are_no_text_are_taken_as_they_are() -> None:
    assert IgnoreRules(b"\xff*").judge(b"a/\xff\xfe", is_folder=False)
