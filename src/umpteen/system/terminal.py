"""Text as a terminal may be shown it.

Names, reasons, hosts, paths and what tasks print come from others, and may hold control sequences
that a terminal would carry out. Standard library alone.
"""

from __future__ import annotations

import re

__all__ = ["clean"]

_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, and moves of the cursor
    # titles, clipboard
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]"
    r"|[\x07\x08]"  # bells, and steps back
)
_BLANKS = re.compile(r"[\t-\r\x1c-\x1f\x85\u2028\u2029]")
_HIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f"
    r"\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # direction, no width
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    """The text in one line, without what a terminal would obey or what could not be seen.

    Of what is hidden in it a `?` is left, of line ends and tabs a blank, of colours nothing.
    """
    if text.isascii() and text.isprintable():  # nearly all
        return text
    return _HIDDEN.sub("?", _BLANKS.sub(" ", _SEQUENCES.sub("", text)))
