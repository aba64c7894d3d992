"""Expressions that choose tasks: `state=failed and (exit_code=137 or peak_mb>4000)`.

Text in, a test of one task's facts out. A recursive descent over a grammar of five lines;
nothing is ever evaluated as code.

    any   = all { "or" all }                  name  = a field, or a parameter of the task
    all   = one { "and" one }                 value = up to the next blank or ")", or quoted
    one   = "not" one | "(" any ")" | name ("=" "!=" "<" "<=" ">" ">=" "~") value
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from umpteen.errors import InputError, nearest_hint
from umpteen.model.states import STATES

__all__ = ["FIELDS", "PLAN_FIELDS", "Where", "compile_where"]

# What is known of a task before it has run, and afterwards.
PLAN_FIELDS = ("name", "index", "tag")
FIELDS = (
    *PLAN_FIELDS,
    *("state", "attempt", "exit_code", "signal", "reason", "seconds", "cpu_s", "peak_mb"),
    *("start_s", "end_s", "stdout_bytes", "stderr_bytes"),
)

_BLANK = re.compile(r"\s*")
_WORD = re.compile(r"(and|or|not)\b(?!\s*(?:[=<>~]|!=))")
_NAME = re.compile(r"[^\s()=!<>~\"']+")
_SIGN = re.compile(r"!=|<=|>=|==?|<|>|~")
_VALUE = re.compile(r"[^\s)\"']+")
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_PARAMETER = "param."
_MAX_DEPTH = 100
_HINT = "write it as: state=failed and (exit_code=137 or lr<0.1)"
_PLAN_HINT = "write it as: tag=big and (index<10 or lr<0.1)"


class _Facts(Protocol):
    """A task's facts: these, and an attribute for each of FIELDS that may be asked for."""

    @property
    def name(self) -> str: ...

    @property
    def tags(self) -> Sequence[str]: ...

    @property
    def parameters(self) -> Mapping[str, str]: ...


_Test = Callable[[_Facts], bool]


class Where:
    """One expression; called with a task's facts it says whether they fit."""

    def __init__(self, text: str, test: _Test, names: Iterable[str], valid: Iterable[str]) -> None:
        self.text = text
        self.names = frozenset(names)  # the parameters that it asks for
        self._test, self._valid = test, tuple(valid)

    def __call__(self, facts: _Facts) -> bool:
        """Whether a task with these facts is meant."""
        return self._test(facts)

    def check(self, parameters: Iterable[Mapping[str, str] | None]) -> Where:
        """Itself; raises InputError where it asks for a parameter that no task has."""
        missing = set(self.names)
        known: set[str] = set()
        for found in parameters if missing else ():
            if found:
                known.update(found)
                missing -= found.keys()
            if not missing:
                break
        if missing:
            name = min(missing)
            hint = nearest_hint(name, [*self._valid, *known])
            raise InputError(f"no task has {name!r}, which {self.text!r} asks for", hint)
        return self


def compile_where(text: str, fields: Iterable[str] = FIELDS) -> Where:
    """The test that an expression stands for. Raises InputError that names the place."""
    parser = _Parser(text, tuple(fields))
    return Where(text, parser.parse(), parser.names, fields)


class _Parser:
    def __init__(self, text: str, fields: tuple[str, ...]) -> None:
        self.text, self.fields, self.place, self.depth = text, fields, 0, 0
        self.names: set[str] = set()

    def parse(self) -> _Test:
        test = self._any()
        if self.place < len(self.text):
            raise self._wrong("'and', 'or' or the end")
        return test

    def _any(self) -> _Test:
        tests = [self._all()]
        while self._take_word("or"):
            tests.append(self._all())
        return tests[0] if len(tests) == 1 else lambda facts: any(test(facts) for test in tests)

    def _all(self) -> _Test:
        tests = [self._one()]
        while self._take_word("and"):
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda facts: all(test(facts) for test in tests)

    def _one(self) -> _Test:
        if self._take_word("not"):
            test = self._descend(self._one)
            return lambda facts: not test(facts)
        if self._take("("):
            test = self._descend(self._any)
            if not self._take(")"):
                raise self._wrong("')'")
            return test
        return self._compare()

    def _descend(self, parse: Callable[[], _Test]) -> _Test:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            message = f"more than {_MAX_DEPTH} '(' and 'not' are open in the expression"
            raise InputError(message, "write it with fewer")
        test = parse()
        self.depth -= 1
        return test

    def _compare(self) -> _Test:
        self._skip()
        start = self.place
        name = self._match(_QUOTED) or self._match(_NAME)
        if not name:
            raise self._wrong("a field or a parameter")
        self._skip()
        sign = self._match(_SIGN)
        if not sign:
            raise self._wrong("one of = != < <= > >= ~")
        self._skip()
        at = self.place
        is_quoted = self.text.startswith(("'", '"'), at)
        value = self._match(_QUOTED if is_quoted else _VALUE)
        if self.place == at:
            raise self._wrong("a value")
        return self._build(name, sign, value, start, at)

    def _build(self, name: str, sign: str, value: str, start: int, at: int) -> _Test:
        fits = _build_sign(sign, value)
        field = {"tags": "tag"}.get(name, name)
        if name.startswith(_PARAMETER) or field not in self.fields:
            if name in FIELDS:
                message = f"{name!r} is not known before a task has run"
                known = f"known are {', '.join(self.fields)} and the parameters"
                raise self._refuse(start, message, known)
            name = name.removeprefix(_PARAMETER)
            self.names.add(name)
            return lambda facts: fits(facts.parameters.get(name))
        if field == "tag":
            if sign == "!=":
                return lambda facts: all(fits(tag) for tag in facts.tags)
            return lambda facts: any(fits(tag) for tag in facts.tags)
        if field == "state" and sign in ("=", "==", "!=") and value not in STATES:
            raise self._refuse(at, f"there is no state {value!r}", nearest_hint(value, STATES))
        return lambda facts: fits(getattr(facts, field))

    # --- text ---------------------------------------------------------------------------

    def _skip(self) -> None:
        found = _BLANK.match(self.text, self.place)
        assert found is not None
        self.place = found.end()

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.place)
        if not found:
            return ""
        self.place = found.end()
        return found[0] if not found.lastindex else found[found.lastindex]

    def _take(self, sign: str) -> bool:
        self._skip()
        if not self.text.startswith(sign, self.place):
            return False
        self.place += len(sign)
        return True

    def _take_word(self, word: str) -> bool:
        self._skip()
        found = _WORD.match(self.text, self.place)
        if not found or found[1] != word:
            return False
        self.place = found.end()
        return True

    def _wrong(self, expected: str) -> InputError:
        self._skip()
        return self._refuse(self.place, f"here should be {expected}")

    def _refuse(self, place: int, message: str, hint: str | None = None) -> InputError:
        where = f"after {self.text[:place].rstrip()!r}" if place else "at the start"
        usual = _HINT if "state" in self.fields else _PLAN_HINT
        return InputError(f"{self.text!r}, {where}: {message}", hint or usual)


def _build_sign(sign: str, value: str) -> Callable[[Any], bool]:
    """Whether what a task has fits: as numbers where both are, else as text.

    Where it has nothing (None) only `!=` fits.
    """
    number = float(value) if _NUMBER.fullmatch(value) else None
    if sign == "~":
        match = re.compile(fnmatch.translate(value)).match
        return lambda found: found is not None and match(str(found)) is not None
    compare = _COMPARE[sign]

    def fits(found: Any) -> bool:
        if found is None:
            return sign == "!="
        if number is not None and _NUMBER.fullmatch(str(found)):
            return compare(float(found), number)
        return compare(str(found), value)

    return fits


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b),
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}
