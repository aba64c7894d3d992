"""What the lines of a `.gitignore` file mean, as git itself reads them.

Takes the bytes of such a file, and of paths below its folder. Looks at no disk. Whether a
folder above is left out is for the caller, who then does not go into it. pathspec is no way
around it: its GitIgnoreSpec reads text, knows no `[[:alpha:]]` and fails at `[z-a]`,
which git reads.
"""

from __future__ import annotations

import re

__all__ = ["IgnoreRules"]

_SPECIAL = re.compile(rb"[*?\[\\]")
# In a set: the name of a class, or a character and perhaps the end of a range from it.
_ITEM = re.compile(rb"\[:([^\]]*):\]|(\\.|[^\\])(?:-(\\.|[^\\\]]))?", re.DOTALL)
_NEVER = b"(?!)"
_ANY = rb"[^/\0]"
_FOLDER = rb"\0"  # marks the end of a folder's path; no name can hold it
_CLASSES = {
    b"alnum": rb"0-9A-Za-z", b"alpha": rb"A-Za-z", b"blank": rb" \t", b"cntrl": rb"\x01-\x1f\x7f",
    b"digit": rb"0-9", b"graph": rb"!-~", b"lower": rb"a-z", b"print": rb" -~",
    b"punct": rb"!-/:-@\[-`{-~", b"space": rb"\t-\r ", b"upper": rb"A-Z", b"xdigit": rb"0-9A-Fa-f",
}  # fmt: skip


class IgnoreRules:
    """The rules of one file. A pattern that cannot be read matches nothing, as with git."""

    def __init__(self, content: bytes) -> None:
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        found = [line for line in map(_trim, lines) if line and not line.startswith(b"#")]
        # The last line that matches decides: it is the first of the alternatives.
        self._leaves_out = [not line.startswith(b"!") for line in reversed(found)]
        groups = b"|".join(b"(%s)" % _translate(line) for line in reversed(found))
        self._expression = re.compile(groups or _NEVER, re.DOTALL)

    def judge(self, path: bytes, *, is_folder: bool) -> bool | None:
        """Whether a path below the file's folder is left out; None where no rule says."""
        match = self._expression.fullmatch(path + b"\0" if is_folder else path)
        return self._leaves_out[match.lastindex - 1] if match and match.lastindex else None


def _trim(line: bytes) -> bytes:
    """Without the blanks at its end that no backslash keeps."""
    line = line.removesuffix(b"\r")
    trimmed = line.rstrip(b" ")
    backslashes = len(trimmed) - len(trimmed.rstrip(b"\\"))
    return line[: len(trimmed) + 1] if backslashes % 2 else trimmed


def _translate(line: bytes) -> bytes:
    """An expression for whole paths, those of folders with a mark at their end."""
    pattern = line.removeprefix(b"!")
    ending = _FOLDER + b"?"
    if pattern.endswith(b"/"):
        pattern, ending = pattern[:-1], _FOLDER
    if b"/" not in pattern:  # then it is for names, wherever they are
        expression = _translate_glob(pattern, is_path=False)
        return b"(?:.*/)?" + expression + ending if pattern else _NEVER
    pattern = pattern.removeprefix(b"/")
    special = _SPECIAL.search(pattern)
    plain = special.start() if special else len(pattern)
    # What follows the plain part is read by itself: in `a**/b` the stars stand at its beginning.
    expression = re.escape(pattern[:plain]) + _translate_glob(pattern[plain:], is_path=True)
    return expression + ending if pattern else _NEVER


def _translate_glob(glob: bytes, *, is_path: bool) -> bytes:
    parts, position = [], 0
    while position < len(glob):
        character = glob[position : position + 1]
        if character == b"*":
            part, position = _translate_stars(glob, position, is_path=is_path)
        elif character == b"[":
            part, position = _translate_set(glob, position + 1)
        elif character == b"?":
            part, position = _ANY, position + 1
        else:
            position += character == b"\\"
            part = re.escape(glob[position : position + 1]) or _NEVER
            position += 1
        parts.append(part)
    return b"".join(parts)


def _translate_stars(glob: bytes, start: int, *, is_path: bool) -> tuple[bytes, int]:
    """(expression, where the rest begins) of the stars at `start`."""
    end = start
    while glob[end : end + 1] == b"*":
        end += 1
    rest = glob[end : end + 2]
    is_double = end - start > 1 and (start == 0 or glob[start - 1 : start] == b"/")
    if not is_path or not is_double or (rest[:1] not in (b"", b"/") and rest != b"\\/"):
        return _ANY + b"*", end
    # `**/` may be nothing at all.
    return (b"(?:.*/)?", end + 1) if rest[:1] == b"/" else (b".*", end)


def _translate_set(glob: bytes, start: int) -> tuple[bytes, int]:
    """(expression, where the rest begins) of the set that begins behind its `[`."""
    is_negated = glob[start : start + 1] in (b"!", b"^")
    position = start + is_negated
    items: list[bytes] = []
    while not items or glob[position : position + 1] != b"]":
        item = _ITEM.match(glob, position)
        if not item or (item[1] is not None and item[1] not in _CLASSES):
            return _NEVER, len(glob)
        items.append(_translate_item(item))
        position = item.end()
    inside = b"".join(items)
    return (b"[^/\\0%s]" if is_negated else b"(?![/\\0])[%s]") % inside, position + 1


def _translate_item(item: re.Match[bytes]) -> bytes:
    if item[1] is not None:
        return _CLASSES[item[1]]
    low, high = item[2][-1:], (item[3] or item[2])[-1:]
    # Of a range that is the wrong way round, git takes its beginning.
    return re.escape(low) + b"-" + re.escape(high) if low <= high else re.escape(low)
