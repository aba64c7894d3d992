r"""Placeholders: a command or name template and values in, the filled text out.

A template is read once and filled for each row. Quoting for the shell happens here and
nowhere else. Knows nothing of tables or files.

Of sh's grammar (POSIX 2.2, 2.3, 2.6, 2.7.4) it covers what changes how a value is quoted: words
without quotes, `\x`, `'…'`, `"…"`, comments, `$name` (a value right behind it is held apart), the
digits of a redirection, `$(…)` to any depth, and `$((…))`, where numbers and names alone may stand.
Refused, but for `{name:raw}`, as no quoting is safe there in every shell: `${…}`, backticks,
`$'…'`, the body of a here-document, and what comes after a `case` in a `$(…)`, whose patterns end
in a bracket that closes none. Not read, as none of it changes quotes: reserved words, functions,
aliases, and what only bash or zsh has, such as `[[ … ]]` and `<(…)`.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from umpteen.errors import InputError, nearest_hint
from umpteen.model.names import encode_value

__all__ = ["Template", "TextTemplate", "refuse_placeholder_in_name", "refuse_placeholders"]

_IDENTIFIER = re.compile(r"\{([A-Za-z_]\w*)(?::raw)?\}")
_BARE = re.compile(r"[A-Za-z0-9_@%+:./-]+")
_NUMBER = re.compile(r"[\w.+-]+", re.ASCII)
_PARAMETER = re.compile(r"\$(?:[A-Za-z_]\w*|[?#@*!$0-9-])", re.ASCII)
_REDIRECTION = re.compile(r"\d*[<>]")
_HERE_DOCUMENT = re.compile(
    r"""<<(-?)[ \t]*((?:'[^']*'|"[^"]*"|\\.|[^\s;&|<>()'"\\])+)""", re.DOTALL
)
_CASE = re.compile(r"case\s")
_PLAIN = re.compile(r"[\w./:=,+@%~^!*?\[\]}-]+")
_RESERVED = frozenset(
    "if then else elif fi do done case esac while until for in function select time coproc".split()
)

_Quoting = Callable[[str], str]


class _Slot(NamedTuple):
    """A place in a template: which value stands there, and how it is written."""

    start: int
    end: int
    name: str
    quoting: _Quoting


class Template:
    """A command with `{name}` and `{name:raw}`, filled so that the shell sees the values.

    Raises InputError where a placeholder is unknown or stands where nothing can be quoted.
    """

    def __init__(self, command: str | list[str], names: Collection[str]) -> None:
        self._words: list[_Filled] | None = None
        if isinstance(command, str):
            slots = _Scanner(command, names).scan() if names else []
            self._text = _Filled(command, slots)
        else:
            self._words = [_Filled(word, _find_in_word(word, names)) for word in command]

    def fill(self, values: Mapping[str, str]) -> str | list[str]:
        """The command for one row; raises InputError for a value that cannot stand there."""
        if self._words is None:
            return self._text.fill(values)
        return [word.fill(values) for word in self._words]


def refuse_placeholders(command: str) -> None:
    """Raises InputError for a `{word}` of a command that is given no values.

    What stands in single quotes (of awk, say) is the command's own, and so is `${word}`.
    """
    bare = re.sub(r"'[^']*'", "", command)
    if match := re.search(r"(?<!\$)" + _IDENTIFIER.pattern, bare):
        name = match[1]
        raise InputError(
            f"the command has {{{name}}}, and {name!r} has no values",
            f"give them behind it, such as {name}=1..5, or a table: --from values.csv",
        )


def refuse_placeholder_in_name(name: object) -> None:
    """Raises InputError for a `{word}` in the name of a task that has no values."""
    if isinstance(name, str) and (match := _IDENTIFIER.search(name)):
        hint = f"give it values: matrix: {{{match[1]}: 1..5}}"
        raise InputError(
            f"the name has {match[0]}, and {match[1]!r} has no values", hint, field="name"
        )


class TextTemplate:
    """A text that no shell reads, with plain replacement.

    `for_name` percent-encodes values as in automatic names, and refuses unknown placeholders;
    else those are refused that are nearly a declared name.
    """

    def __init__(self, text: str, names: Collection[str], *, for_name: bool = False) -> None:
        if for_name and names:
            for match in _IDENTIFIER.finditer(text):
                if match[1] not in names:
                    raise _unknown(match[1], names)
        slots = _find_slots(text, names, encode_value) if for_name else _find_in_word(text, names)
        self._text = _Filled(text, slots)

    def fill(self, values: Mapping[str, str]) -> str:
        """The text for one row."""
        return self._text.fill(values)


class _Filled:
    """Text between slots, joined for each row."""

    def __init__(self, text: str, slots: list[_Slot]) -> None:
        pieces, end = [], 0
        for slot in slots:
            pieces.append(text[end : slot.start].replace("%", "%%") + "%s")
            end = slot.end
        self._format = "".join(pieces) + text[end:].replace("%", "%%") if slots else text
        self._slots = [(slot.name, slot.quoting) for slot in slots]

    def fill(self, values: Mapping[str, str]) -> str:
        if not self._slots:
            return self._format
        return self._format % tuple([quoting(values[name]) for name, quoting in self._slots])


def _keep(value: str) -> str:
    return value


# A product has far fewer values than rows.
@functools.lru_cache(maxsize=10_000)
def _quote_word(value: str) -> str:
    if _BARE.fullmatch(value) and value not in _RESERVED:
        return value
    return _quote_always(value)


def _quote_always(value: str) -> str:
    return "'" + _escape_single(value) + "'"


def _escape_single(value: str) -> str:
    return value.replace("'", "'\\''")


def _escape_double(value: str) -> str:
    return re.sub(r'([\\"$`])', r"\\\1", value)


def _escape_double_after_parameter(value: str) -> str:
    # `"$a` and then `b` would read the variable `ab`.
    return '""' + _escape_double(value)


def _keep_number(value: str) -> str:
    # Quotes do not protect inside `$((…))`: a `$(…)` in single quotes still runs there.
    if _NUMBER.fullmatch(value):
        return value
    raise InputError(
        f"the value {value!r} cannot stand in an arithmetic expression",
        "only a number or a name can stand in $((…))",
    )


def _unknown(word: str, names: Collection[str]) -> InputError:
    return InputError(f"unknown placeholder {{{word}}}", nearest_hint(word, names))


def _declared(names: Collection[str]) -> re.Pattern[str]:
    """Finds `{name}` and `{name:raw}` of the declared names, but no `${name}`."""
    choices = "|".join(re.escape(name) for name in names)
    return re.compile(rf"(?<!\$)\{{({choices})(:raw)?\}}")


def _find_slots(text: str, names: Collection[str], quoting: _Quoting) -> list[_Slot]:
    if not names:
        return []
    return [
        _Slot(match.start(), match.end(), match[1], _keep if match[2] else quoting)
        for match in _declared(names).finditer(text)
    ]


def _find_in_word(word: str, names: Collection[str]) -> list[_Slot]:
    """Slots in a word that no shell sees, where a brace of its own cannot be marked.

    So only a placeholder that is nearly a declared name is taken for a misspelt one.
    """
    for match in _IDENTIFIER.finditer(word):
        near = difflib.get_close_matches(match[1], names, n=1, cutoff=0.6)
        if near and match[1] not in names:
            raise _unknown(match[1], names)
    return _find_slots(word, names, _keep)


class _Scanner:
    """Reads sh far enough to know, for each placeholder, the quotes it stands in."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        self._text = text
        self._names = names
        self._pattern = _declared(names)
        self._brace = re.compile(self._pattern.pattern.removeprefix(r"(?<!\$)"))
        self._at = 0
        self._slots: list[_Slot] = []
        self._bodies: list[tuple[str, bool]] = []
        self._after_parameter = -1
        self._muted = 0
        self._unsure = False

    def scan(self) -> list[_Slot]:
        """The slots in the order of the text."""
        self._scan_code(nested=False)
        return self._slots

    def _scan_code(self, *, nested: bool) -> None:
        """Reads unquoted text to the end, or to the `)` that ends a `$(`."""
        depth, word_start = 0, True
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == ")" and nested and depth == 0:
                self._at += 1
                return
            if letter in "()":
                depth += 1 if letter == "(" else -1
            if word_start and letter == "#":
                self._at = _find_or_end(self._text, "\n", self._at)
                continue
            if nested and word_start and _CASE.match(self._text, self._at):
                self._unsure = True
            self._scan_token(letter)
            word_start = letter in " \t\n;&|()<>"

    def _scan_token(self, letter: str) -> None:
        if letter == "\\":
            self._at += 2
        elif letter == "'":
            self._scan_single()
        elif letter == '"':
            self._scan_double()
        elif letter == "`":
            self._scan_backticks()
        elif letter == "$":
            self._scan_dollar(double=False)
        elif letter == "{":
            self._scan_brace()
        elif letter == "<":
            self._scan_redirection()
        elif letter == "\n":
            self._at += 1
            self._scan_bodies()
        elif match := _PLAIN.match(self._text, self._at):
            self._at = match.end()
        else:
            self._at += 1

    def _scan_brace(self) -> None:
        match = self._brace.match(self._text, self._at)
        if match:
            joined = self._after_parameter == self._at
            forced = joined or _REDIRECTION.match(self._text, match.end())
            self._add(match, _quote_always if forced else _quote_word)
            self._at = match.end()
            return
        unknown = _IDENTIFIER.match(self._text, self._at)
        if unknown and not self._muted:
            error = _unknown(unknown[1], self._names)
            raise InputError(error.message, f"{error.hint} (\\{unknown[0]} keeps the brace)")
        self._at += 1

    def _scan_single(self) -> None:
        end = _find_or_end(self._text, "'", self._at + 1)
        for match in self._pattern.finditer(self._text, self._at + 1, end):
            self._add(match, _escape_single)
        self._at = end + 1

    def _scan_double(self) -> None:
        self._at += 1
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == '"':
                self._at += 1
                return
            if letter == "\\":
                self._at += 2 if self._text[self._at + 1 : self._at + 2] in '$`"\\\n{' else 1
            elif letter == "`":
                self._scan_backticks()
            elif letter == "$":
                self._scan_dollar(double=True)
            elif match := self._brace.match(self._text, self._at):
                joined = self._after_parameter == self._at
                self._add(match, _escape_double_after_parameter if joined else _escape_double)
                self._at = match.end()
            else:
                self._at += 1

    def _scan_dollar(self, *, double: bool) -> None:
        if self._text.startswith("$((", self._at) and self._scan_arithmetic():
            return
        if self._text.startswith("$(", self._at):
            self._at += 2
            self._scan_code(nested=True)
        elif self._text.startswith("${", self._at):
            self._scan_expansion(double=double)
        elif self._text.startswith("$'", self._at) and not double:
            start = self._at + 2
            self._at = _find_or_end(self._text, "'", start) + 1
            self._refuse(start, self._at, "$'…'")
        elif match := _PARAMETER.match(self._text, self._at):
            self._at = self._after_parameter = match.end()
        else:
            self._at += 1

    def _scan_arithmetic(self) -> bool:
        """Reads `$((…))`; goes back and says False where it is a `$(` with a `(` in it."""
        before, slots, depth = self._at, len(self._slots), 0
        self._at += 3
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == ")" and depth == 0:
                if self._text.startswith("))", self._at):
                    self._at += 2
                    return True
                break
            if match := self._brace.match(self._text, self._at):
                self._add(match, _keep_number)
                self._at = match.end()
            elif letter == "$":
                self._scan_dollar(double=True)
            elif letter == "`":
                self._scan_backticks()
            else:
                depth += (letter == "(") - (letter == ")")
                self._at += 2 if letter == "\\" else 1
        self._at = before
        del self._slots[slots:]
        return False

    def _scan_expansion(self, *, double: bool) -> None:
        """Reads `${…}`, in which shells differ too much for a value to be quoted."""
        start = self._at + 2
        operator = re.compile(r"\$\{#?(?:\w+|[?#@*!$-])(.?)", re.DOTALL).match(self._text, self._at)
        literal = double and operator is not None and operator[1] in ("", *":-+=?}")
        self._at = start
        self._muted += 1
        while self._at < len(self._text) and self._text[self._at] != "}":
            letter = self._text[self._at]
            if letter == "$":
                self._scan_dollar(double=double)
            elif letter in '\\"`' or (letter == "'" and not literal):
                self._scan_token(letter)
            elif match := self._brace.match(self._text, self._at):
                self._at = match.end()
            else:
                self._at += 1
        self._muted -= 1
        self._refuse(start, self._at, "${…}")
        self._at += 1

    def _scan_backticks(self) -> None:
        start = self._at = self._at + 1
        while self._at < len(self._text) and self._text[self._at] != "`":
            self._at += 2 if self._text[self._at] == "\\" else 1
        self._refuse(start, self._at, "backticks")
        self._at += 1

    def _scan_redirection(self) -> None:
        if self._text.startswith("<<<", self._at):
            self._at += 3
        elif match := _HERE_DOCUMENT.match(self._text, self._at):
            self._bodies.append((re.sub(r"['\"\\]", "", match[2]), bool(match[1])))
            self._at = match.end()
        else:
            self._at += 1

    def _scan_bodies(self) -> None:
        for delimiter, strips_tabs in self._bodies:
            start, line = self._at, ""
            while self._at < len(self._text):
                end = _find_or_end(self._text, "\n", self._at)
                line = self._text[self._at : end]
                self._at = end + 1
                if (line.lstrip("\t") if strips_tabs else line) == delimiter:
                    break
            self._refuse(start, min(self._at, len(self._text)), "a here-document")
        self._bodies = []

    def _refuse(self, start: int, end: int, where: str) -> None:
        """Takes raw placeholders between the two places, and no others."""
        if self._muted:
            return
        for match in self._pattern.finditer(self._text, start, end):
            if not match[2]:
                raise InputError(
                    f"the placeholder {match[0]} stands in {where}, where it cannot be quoted",
                    f"{{{match[1]}:raw}} puts the value there as it is",
                )
            self._add(match, _keep)

    def _add(self, match: re.Match[str], quoting: _Quoting) -> None:
        if self._muted:
            return
        if self._unsure and not match[2]:
            raise InputError(
                f"the placeholder {match[0]} stands after a 'case' in $(…), where its quotes "
                "cannot be told",
                f"put the commands into a script, or write {{{match[1]}:raw}}",
            )
        chosen = _keep if match[2] else quoting
        self._slots.append(_Slot(match.start(), match.end(), match[1], chosen))


def _find_or_end(text: str, wanted: str, start: int) -> int:
    found = text.find(wanted, start)
    return len(text) if found < 0 else found
