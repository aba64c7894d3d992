"""One command a line."""

from __future__ import annotations

import pytest

from umpteen.errors import InputError
from umpteen.formats.documents import Source
from umpteen.formats.lines import read_lines


def test_lines_blank_ones_and_comments_are_no_tasks() -> None:
    draft = read_lines(Source("a.txt", b"# first\n\necho a # b\n   \n  echo {x}\n"))
    assert draft.entries == ["echo a # b", "echo {x}"]


def test_lines_of_windows_are_read() -> None:
    assert read_lines(Source("a.txt", b"echo a\r\necho b\r\n")).entries == ["echo a", "echo b"]


def test_lines_know_the_line_of_a_task() -> None:
    draft = read_lines(Source("a.txt", b"# first\n\necho a\n\necho b"))
    place = draft.find([1])
    assert place is not None
    assert place.line == 5


def test_lines_that_end_in_a_backslash_go_on_as_in_a_shell() -> None:
    data = b"# a \\\necho a \\\r\n  --flag b\\\\\necho c\\\n\necho d\\"
    draft = read_lines(Source("a.txt", data))
    assert draft.entries == ["echo a   --flag b\\\\", "echo c", "echo d"]
    places = [draft.find([position]) for position in range(3)]
    assert [place.line for place in places if place] == [2, 4, 6]


@pytest.mark.parametrize("name", ["README.md", "cfg.toml", "x.INI"])
def test_lines_of_a_file_that_is_known_to_be_none_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="list of commands"):
        read_lines(Source(name, b"all: x\n"))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"a\nb\0c\n", "a.txt, line 2, column 2: has a NUL byte"),
        ("a\né".encode() + b"\xff\n", "a.txt, line 2, column 2: is not UTF-8 text"),
        ("a".encode("utf-16"), "a.txt: is UTF-16 text, not UTF-8"),
        ("ls é".encode("utf-16-le"), "a.txt: is UTF-16 text, not UTF-8"),
        ("ls\n".encode("utf-16-be"), "a.txt: is UTF-16 text, not UTF-8"),
        (b"# all\n\nlr seed\n0.1 1\n", "a.txt, line 4: no command is called 0.1"),
        (b"-1e-3,2\n", "a.txt, line 1: no command is called -1e-3"),
        (b"#!/bin/sh\nls\n", "a.txt: is a script"),
    ],
)
def test_lines_that_are_no_commands_are_refused(data: bytes, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        read_lines(Source("a.txt", data))
    assert caught.value.message.startswith(problem)


@pytest.mark.parametrize(
    ("name", "data", "command"),
    [
        ("sim.py", b"import os\n", "python3 sim.py"),
        ("fit.R", b"x <- 1\n", "Rscript fit.R"),
        ("a.txt", b"#!/bin/sh -e\nls\n", "sh a.txt"),
        ("a", b"#!/usr/bin/env python3\nls\n", "python3 a"),
    ],
)
def test_lines_of_a_script_are_refused_with_what_runs_it(
    name: str, data: bytes, command: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_lines(Source(name, data))
    assert caught.value.message == f"{name}: is a script, not a list of commands"
    assert caught.value.hint == f"to run it as one task: umpteen run '{command}'"
