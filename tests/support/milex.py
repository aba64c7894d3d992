"""A program as users of milex-scheduler have them: `NAME`, and `NAME-cli` that parses for it."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["write_app"]

_PARSER = """\
#!{python}
import argparse, json, sys
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--mode", choices=["fast", "two words"], default="fast")
parser.add_argument("--text", default="a default")
parser.add_argument("--c", type=int)
parser.add_argument("--flag", action="store_true")
parser.add_argument("--numbers", nargs="*", type=int)
parser.add_argument("--words", nargs="*")
parser.add_argument("--time")
parser.add_argument("--output")
parser.add_argument("--debug", action="store_true")
arguments = parser.parse_args()
print(json.dumps({{key: value for key, value in vars(arguments).items()}}))
"""
# What it was given, as JSON, so that nothing is lost on the way.
_PROGRAM = """\
#!{python}
import json, os, sys
print(json.dumps({{"argv": sys.argv[1:], "milex": os.environ.get("MILEX")}}))
"""


def write_app(folder: Path, name: str = "app") -> Path:
    """Put both into a folder, which is to be on PATH; the folder."""
    folder.mkdir(exist_ok=True)
    for path, text in ((folder / name, _PROGRAM), (folder / f"{name}-cli", _PARSER)):
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)
    return folder
