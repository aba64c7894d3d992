"""What tasks say of dependencies, retries, needs and limits, as TaskOptions.

Takes plain values of any syntax, in YAML all of them text. Knows no file and no place in one.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypedDict, cast

import msgspec

from umpteen.errors import InputError, SettingsError, nearest_hint
from umpteen.formats.placeholders import TextTemplate
from umpteen.formats.values import value_text
from umpteen.job.spec import Retry, TaskOptions
from umpteen.model.dependencies import OUTCOMES
from umpteen.model.names import is_capability
from umpteen.units import (
    SIZE_WORDS,
    parse_memory,
    parse_size,
    read_duration_s,
    refuse_value,
    show_value,
)

__all__ = [
    "GivenOptions",
    "TaskOptionsEntry",
    "TaskOptionsTemplate",
    "build_after_options",
    "build_options",
    "merge_options",
    "parse_after",
    "parse_needs",
    "parse_options",
    "parse_retries",
]

_MOST = 2**31
_MOST_RETRIES = 1000
_NONE = TaskOptions()
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_FACTOR = re.compile(r"x\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)", re.IGNORECASE)
_NO_WAIT = re.compile(r"0+(?:\.0+)?\s*[smhd]?")
_EXIT_CODE = re.compile(r"exit_code[ :]\s*([0-9]{1,3})(?:\s*-\s*([0-9]{1,3}))?")
_SIGNAL = re.compile(r"(?:signal[ :]\s*(?:SIG)?|SIG)([0-9]{1,2}|[A-Z][A-Z0-9]*)", re.IGNORECASE)
_CONDITIONS = ("failed", "any", "timed_out", "out_of_memory", "output_limit", "lost")
_RULE_WORDS = {
    "when": "a condition or a list of conditions",
    "times": f"a whole number from 1 to {_MOST_RETRIES}",
    "wait": "a duration such as 0, 5s or 1m",
    "memory": "a factor such as x2, or a size such as 8G",
    "alone": "true or false",
}
_RETRIES_HINT = "write retries: 3, or retries: {when: timed_out, times: 3}"

_Whole = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
_Size = str | int | float | None


class TaskOptionsEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The keys of a task, or of a job for all its tasks, that TaskOptions has."""

    after: Any = None
    retries: Any = None
    cpus: _Count | None = None
    memory: _Size = None
    gpus: _Whole | None = None
    priority: Annotated[int, msgspec.Meta(ge=-_MOST, le=_MOST)] | None = None
    expect: str | list[Any] | None = None
    output_limit: _Size = None
    slurm: dict[str, Any] | None = None
    needs: str | list[Any] | None = None


class GivenOptions(TypedDict, total=False):
    """Those of TaskOptions that are given somewhere, so that others can be laid over them."""

    after: list[tuple[str, str]]
    retries: list[Retry]
    cpus: int | None
    memory: int | None
    gpus: int
    expect: list[str]
    output_limit: int | None
    priority: int
    template: int
    slurm: dict[str, str]
    needs: tuple[str, ...]


class _Rule(msgspec.Struct):
    """One rule of `retries`."""

    when: str | list[str] = "failed"
    times: Annotated[int, msgspec.Meta(ge=1, le=_MOST_RETRIES)] = 1
    wait: str | int | float = 1
    memory: str | int | float | None = None
    alone: bool = False


def parse_options(entry: TaskOptionsEntry) -> GivenOptions:
    """Those that the entry has; raises InputError with the field."""
    given: dict[str, Any] = {}
    for key, parse in _PARSERS.items():
        value = getattr(entry, key)
        if value is not None:
            given[key] = parse(value)
    return cast("GivenOptions", given)


def merge_options(common: GivenOptions, own: GivenOptions) -> GivenOptions:
    """Those of a task over those of all tasks; options of Slurm one by one."""
    merged: GivenOptions = {**common, **own}
    if "slurm" in own:
        from umpteen.job.slurm_options import lay_over  # few tasks say anything to Slurm

        merged["slurm"] = lay_over(common.get("slurm", {}), own["slurm"])
    return merged


def build_options(given: GivenOptions) -> TaskOptions | None:
    """The options of a task; None where they are all the defaults."""
    if not given:
        return None
    options = TaskOptions(**given)
    if options.slurm is not None and not options.slurm:
        options = msgspec.structs.replace(options, slurm=None)
    return None if options == _NONE else options


def build_after_options(given: Iterable[str | tuple[str, ...]]) -> dict[Any, TaskOptions]:
    """For each `after`, the options of a task that has no others; raises InputError."""
    names: dict[Any, None] = dict.fromkeys(given)
    is_text = set(map(type, names)) <= {str} and "" not in names and "\0" not in "".join(names)
    # One empty list for all: each its own would be half of what such a task takes.
    none: list[Any] = _NONE.expect
    if is_text:
        return {
            name: TaskOptions([(name, "succeeded")], none, None, None, 0, none) for name in names
        }
    return {
        name: TaskOptions(parse_after(list(name) if isinstance(name, tuple) else name))
        for name in names
    }


class TaskOptionsTemplate:
    """TaskOptions with placeholders in `after`, as in names, and in `expect`.

    Raises InputError for an unknown placeholder in `after`.
    """

    def __init__(self, options: TaskOptions | None, names: Sequence[str]) -> None:
        self._options = options
        self._after: list[tuple[TextTemplate, str]] = []
        self._expect: list[TextTemplate] = []
        if options is None or not names:
            return
        texts = [*(name for name, _ in options.after), *options.expect]
        if not any("{" in text for text in texts):
            return
        try:
            self._after = [(TextTemplate(n, names, for_name=True), o) for n, o in options.after]
        except InputError as error:
            raise InputError(error.message, error.hint, field="after") from None
        self._expect = [TextTemplate(path, names) for path in options.expect]

    def fill(self, values: Mapping[str, str]) -> TaskOptions | None:
        """The options for one row."""
        if self._options is None or not (self._after or self._expect):
            return self._options
        after = [(name.fill(values), outcome) for name, outcome in self._after]
        return msgspec.structs.replace(
            self._options,
            after=list(dict.fromkeys(after)),
            expect=[path.fill(values) for path in self._expect],
        )


# --- after, expect, needs -----------------------------------------------------------------


def parse_after(given: Any) -> list[tuple[str, str]]:
    """(name or pattern, outcome), each once; raises InputError."""
    pairs: list[tuple[str, str]] = []
    for item in given if isinstance(given, list) else [given]:
        if isinstance(item, str) or not isinstance(item, Mapping):
            pairs.append((_parse_name(item), OUTCOMES[0]))
        else:
            pairs.extend((_parse_name(n), _parse_outcome(n, o)) for n, o in item.items())
    return list(dict.fromkeys(pairs))


def _parse_name(given: Any) -> str:
    name = value_text(given, "the names in 'after'", "after")
    if not name:
        raise InputError("'after' has an empty name", "give it the name of a task", field="after")
    return name


def _parse_outcome(name: str, given: Any) -> str:
    if given in OUTCOMES:
        return str(given)
    raise InputError(
        f"{name!r} in 'after' must be succeeded, any or failed, not {show_value(given)}",
        nearest_hint(str(given), OUTCOMES),
        field="after",
    )


def _parse_expect(given: str | list[Any]) -> list[str]:
    items = given if isinstance(given, list) else [given]
    paths = [value_text(path, "the values of 'expect'", "expect") for path in items]
    if "" in paths:
        raise InputError("'expect' has an empty path", field="expect")
    return paths


def parse_needs(given: str | Sequence[Any]) -> tuple[str, ...]:
    """Names of capabilities, sorted and each once; raises InputError."""
    items = [given] if isinstance(given, str) else given
    names = {value_text(name, "the names in 'needs'", "needs") for name in items}
    bad = next((name for name in sorted(names) if not is_capability(name)), None)
    if bad is not None:
        hint = "use letters, digits and '._+-', at most 100 and first a letter or digit"
        message = f"{show_value(bad)} in 'needs' cannot be the name of a capability"
        raise InputError(message if bad else "'needs' has an empty name", hint, field="needs")
    return tuple(sorted(names))


def _parse_output_limit(given: str | float) -> int | None:
    """Bytes; 0 is no limit, in place of the job's."""
    size = parse_size(given)
    if size is None:
        raise refuse_value("output_limit", SIZE_WORDS, given)
    return size or None


def _parse_slurm(given: Mapping[str, Any]) -> dict[str, str]:
    """Options of sbatch, as the executor takes them."""
    from umpteen.job import slurm_options  # which few jobs need

    try:
        return slurm_options.parse_options(given)
    except SettingsError as error:
        raise InputError(error.message, error.hint, field="slurm") from None


# --- retries ------------------------------------------------------------------------------


def parse_retries(given: Any) -> list[Retry]:
    """The rules of a number, a rule or a list of rules; raises InputError."""
    if isinstance(given, Mapping):
        return [_parse_rule(given)]
    if isinstance(given, list):
        return [_parse_rule(rule) for rule in given]
    if isinstance(given, bool) or not _WHOLE.fullmatch(str(given).strip()):
        words = "a number, a rule or a list of rules"
        raise refuse_value("retries", words, given, _RETRIES_HINT)
    times = int(given)
    if not 0 <= times <= _MOST_RETRIES:
        raise refuse_value("retries", f"from 0 to {_MOST_RETRIES}", given)
    return [Retry(["failed"], times)] if times else []


def _parse_rule(given: Any) -> Retry:
    if not isinstance(given, Mapping):
        message = f"a rule of 'retries' must be a mapping, not {show_value(given)}"
        raise InputError(message, _RETRIES_HINT, field="retries")
    for key in given:
        if key not in _RULE_WORDS:
            hint = nearest_hint(str(key), _RULE_WORDS)
            raise InputError(f"unknown key {str(key)!r} in 'retries'", hint, field="retries")
    try:
        rule = msgspec.convert(given, _Rule, strict=False)
    except msgspec.ValidationError as error:
        found = re.search(r"\$\.(\w+)", str(error))
        raise _wrong_rule(found[1] if found else "when", given) from None
    factor, memory = _parse_more_memory(rule, given)
    return Retry(
        _parse_conditions(rule, given),
        times=rule.times,
        wait_s=_parse_wait_s(rule, given),
        memory_factor=factor,
        memory=memory,
        alone=rule.alone,
    )


def _parse_conditions(rule: _Rule, given: Mapping[str, Any]) -> list[str]:
    texts = [rule.when] if isinstance(rule.when, str) else rule.when
    if not texts:
        raise _wrong_rule("when", given)
    return list(dict.fromkeys(map(_parse_condition, texts)))


def _parse_condition(text: str) -> str:
    """As Retry has it: `any` is `failed`, `exit_code 75` and `signal KILL` have their numbers."""
    text = text.strip()
    if text in _CONDITIONS:
        return "failed" if text == "any" else text
    if match := _EXIT_CODE.fullmatch(text):
        low, high = int(match[1]), int(match[2] or match[1])
        if low <= high <= 255:
            return f"exit_code:{low}-{high}" if match[2] else f"exit_code:{low}"
    elif (match := _SIGNAL.fullmatch(text)) and (number := _find_signal(match[1])):
        return f"signal:{number}"
    raise InputError(f"unknown condition {text!r} in 'retries'", _hint(text), field="retries")


def _hint(text: str) -> str:
    mended = re.sub(r"\s*(?:=+|:)\s*", " ", text)
    if mended != text and (_EXIT_CODE.fullmatch(mended) or _SIGNAL.fullmatch(mended)):
        return f"did you mean {mended!r}?"
    return nearest_hint(text, [*_CONDITIONS, "exit_code 75", "exit_code 1-9", "signal KILL"])


def _find_signal(name: str) -> int:
    """Its number; 0 where there is no such signal."""
    if name.isdigit():
        return int(name) if int(name) < signal.NSIG else 0
    found = getattr(signal, f"SIG{name.upper()}", 0)
    return int(found) if isinstance(found, signal.Signals) else 0


def _parse_wait_s(rule: _Rule, given: Mapping[str, Any]) -> float:
    if _NO_WAIT.fullmatch(str(rule.wait).strip()):
        return 0.0
    wait_s = read_duration_s(rule.wait)
    if wait_s is None:
        raise _wrong_rule("wait", given)
    return wait_s


def _parse_more_memory(rule: _Rule, given: Mapping[str, Any]) -> tuple[float, int | None]:
    """(what the memory is multiplied by, the memory in bytes)."""
    if rule.memory is None:
        return 1.0, None
    if match := _FACTOR.fullmatch(str(rule.memory).strip()):
        if float(match[1]) >= 1:
            return float(match[1]), None
        raise InputError("a retry cannot have less memory than x1", field="retries")
    if parse_size(rule.memory) is None:
        raise _wrong_rule("memory", given)
    return 1.0, parse_memory(rule.memory, "retries")


def _wrong_rule(key: str, given: Mapping[str, Any]) -> InputError:
    return refuse_value("retries", _RULE_WORDS[key], given.get(key), subject=f"{key!r} of a retry")


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "after": parse_after,
    "retries": parse_retries,
    "cpus": int,
    "memory": parse_memory,
    "gpus": int,
    "priority": int,
    "expect": _parse_expect,
    "output_limit": _parse_output_limit,
    "slurm": _parse_slurm,
    "needs": parse_needs,
}
