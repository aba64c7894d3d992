"""A copy of umpteen whose every message is worded otherwise, and the way back.

Its letters are Cyrillic ones: no code can take them for the English that it may look for, they are
as wide as ours, and `restore` gives exactly what the original would have said.
"""

from __future__ import annotations

import ast
import re
import shutil
import string
from pathlib import Path

from tests.support.command import SOURCE

__all__ = ["make_reworded", "restore", "reword"]

_FOREIGN = "".join(chr(first + n) for first in (0x430, 0x410) for n in range(26))
_THERE = str.maketrans(string.ascii_letters, _FOREIGN)
_BACK = str.maketrans(_FOREIGN, string.ascii_letters)

_SENTENCE = re.compile(r"[a-zA-Z,;:'`…)]+ [a-z`({]+")
_FIELD = re.compile(r"(\{[^{}]*\})")  # of `str.format`
_PROGRAMS = {"sc batch", "aws s3 cp", "saturnfs cp"}  # what is run, not said
# What looks at a text, where it must find what it found before.
_LOOKING = {
    "compile", "count", "endswith", "find", "findall", "finditer", "fullmatch", "highlight_regex",
    "index", "match", "partition", "removeprefix", "removesuffix", "replace", "rpartition",
    "search", "split", "startswith", "sub",
}  # fmt: skip
# Rewords every error, whatever its message was made of.
_ERRORS = """

def _init(self, message, hint=None, *, code=None, _init=UmpteenError.__init__):
    _init(self, str(message).translate({there!r}), hint, code=code)
    self.hint = self.hint and self.hint.translate({there!r})


UmpteenError.__init__ = _init
"""


def make_reworded(folder: Path) -> Path:
    """The copy, as a folder to be put onto `sys.path`."""
    shutil.copytree(SOURCE / "umpteen", folder / "umpteen", ignore=_leave_out)
    for path in sorted(folder.rglob("*.py")):
        tree = _Rewording().visit(ast.parse(path.read_text()))
        path.write_text(ast.unparse(tree))
    with (folder / "umpteen/errors.py").open("a") as errors:
        errors.write(_ERRORS.format(there=_THERE))
    return folder


_leave_out = shutil.ignore_patterns("__pycache__")


def reword(text: str) -> str:
    """The text in other letters, but for what is put into it."""
    return "".join(
        part if _FIELD.fullmatch(part) else part.translate(_THERE) for part in _FIELD.split(text)
    )


def restore(text: str) -> str:
    """What a reworded text was; also where JSON has written its letters as escapes."""
    plain = re.sub(r"\\u(04[0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)
    return plain.translate(_BACK)


class _Rewording(ast.NodeTransformer):
    """Rewords each text that is a sentence or a part of one, where it is said and not looked for.

    No docstring, no program, no list of words that is split, and no reason that is one word only
    where its class does not say that it is a text.
    """

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        is_docstring = isinstance(node.value, ast.Constant)
        return node if is_docstring else self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if node.name == "Reason":  # each is the text that stands in a record
            for line in node.body:
                if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
                    line.value.value = reword(str(line.value.value))
            return node
        return self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        node.values = [self.visit(value) for value in node.values]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = node.func
        if isinstance(called, ast.Attribute) and called.attr in _LOOKING:
            return node
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str) and _is_said(node.value):
            return ast.copy_location(ast.Constant(reword(node.value)), node)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        texts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
        is_said = _is_said("".join(map(str, texts)))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                part.value = self.visit(part.value)
            elif is_said and isinstance(part, ast.Constant):
                part.value = str(part.value).translate(_THERE)
        return node


def _is_said(text: str) -> bool:
    is_program = text in _PROGRAMS or "import " in text or text.startswith(('{"', "(?"))
    return bool(_SENTENCE.search(text)) and not is_program
