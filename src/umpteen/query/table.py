"""A job as one table: a row a task, its parameters, its newest attempt, and what it measured.

Reads records, and each task's `results/metrics.json`; writes nothing.
"""

from __future__ import annotations

import collections
import datetime as dt
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from umpteen.errors import SettingsError, StoreError
from umpteen.executors.registry import ExecutorRegistry
from umpteen.history.history import History
from umpteen.query.facts import TaskFacts, read_facts
from umpteen.query.outputs import Outputs, find_outputs

__all__ = ["METRICS", "Cell", "Table", "read_table"]

METRICS = "results/metrics.json"
_TOO_MANY = (16 << 20) + 1  # bytes, of which no row is made
_FIRST = ("name", "index", "state")
_LAST = (
    *("attempt", "exit_code", "signal", "reason", "seconds", "cpu_s", "peak_mb"),
    *("start", "end", "stdout_bytes"),
)
_PARAMETER, _METRIC = "param.", "metric."
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,99})(?:\.\d+)?(?:[eE][-+]?\d{1,3})?", re.ASCII)


# What JSON can hold, and of that what stands in a row: the objects of metrics are taken apart.
Json = str | float | bool | list["Json"] | dict[str, "Json"] | None
Cell = str | float | bool | list[Json] | None


class Table(NamedTuple):
    """A row a task."""

    # Their names, in order.
    columns: list[str]
    # Each has all columns; None where there is nothing.
    rows: Iterator[dict[str, Cell]]
    # About metrics that cannot be read or written, each with its task.
    complaints: list[str]


def read_table(
    history: History, executors: ExecutorRegistry | None = None, *, are_typed: bool = True
) -> Table:
    """The table of a job, as it stands now.

    executors: as of `read_status`. are_typed: whether a parameter that is a number in every task is
    one in the rows, too. Else parameters are the text that was written.
    """
    facts = read_facts(history, executors)
    texts = [each.parameters for each in facts]
    given: Sequence[Mapping[str, Cell]] = _type_parameters(texts) if are_typed else texts
    complaints: list[str] = []
    files = _read_files(history, facts, complaints)
    metrics = [
        _read_metrics(each.name, written, complaints)
        for each, written in zip(facts, files, strict=True)
    ]
    parameters = _name_columns(_PARAMETER, given, metrics)
    measured = _name_columns(_METRIC, metrics, given)
    columns = [*_FIRST, *parameters.values(), *_LAST, *measured.values()]
    rows = (
        {
            **dict.fromkeys(columns),
            **_list_facts(each),
            **{parameters[name]: value for name, value in filled.items()},
            **{measured[name]: value for name, value in found.items()},
        }
        for each, filled, found in zip(facts, given, metrics, strict=True)
    )
    return Table(columns, rows, complaints)


def _type_parameters(given: Sequence[Mapping[str, str]]) -> list[Mapping[str, Cell]]:
    """The parameters, as numbers where all tasks that have one have a number: a column has one
    type.
    """
    texts: dict[str, set[str]] = {}
    for parameters in given:
        for name, text in parameters.items():
            texts.setdefault(name, set()).add(text)
    numbers = {name: _parse_numbers(found) for name, found in texts.items()}
    return [
        {name: numbers[name].get(text, text) for name, text in parameters.items()}
        for parameters in given
    ]


def _parse_numbers(texts: Collection[str]) -> dict[str, float]:
    """Each text with its number; empty where one of them is no number as JSON writes them."""
    if not all(map(_NUMBER.fullmatch, texts)):
        return {}
    numbers = {text: json.loads(text) for text in texts}
    return numbers if all(map(math.isfinite, numbers.values())) else {}


def _name_columns(
    prefix: str, given: Sequence[Iterable[str]], others: Sequence[Iterable[str]]
) -> dict[str, str]:
    """The column of each name in `given`: the name itself, where no other column has it.

    Else with the prefix, as often as it takes.
    """
    names = dict.fromkeys(name for each in given for name in each)
    others_names = {*_FIRST, *_LAST, *(name for each in others for name in each)}
    taken = others_names | names.keys()
    columns: dict[str, str] = {}
    for name in names:
        column = name
        if name in others_names:
            while column in taken:
                column = prefix + column
            taken.add(column)
        columns[name] = column
    return columns


def _list_facts(facts: TaskFacts) -> dict[str, Cell]:
    """The columns of the task itself; those of an attempt only where it has one."""
    shown = {name: getattr(facts, name) for name in _FIRST}
    if facts.record is None:
        return shown
    times = {"start": _show_time(facts.start_s), "end": _show_time(facts.end_s)}
    return {**shown, **{name: times.get(name) or getattr(facts, name) for name in _LAST}}


def _show_time(then_s: float) -> str:
    """`2026-11-21T14:03:22.512Z`."""
    then = dt.datetime.fromtimestamp(then_s, dt.UTC)
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- metrics ----------------------------------------------------------------------------


def _read_files(
    history: History, facts: Sequence[TaskFacts], complaints: list[str]
) -> list[bytes | None]:
    """What each task wrote to its metrics; None where there is none. All of a store at once."""
    places = {
        number: place
        for number, each in enumerate(facts)
        if each.record is not None and (place := _find_place(history, each, complaints)) is not None
    }
    found: list[bytes | None] = [None] * len(facts)
    for store in dict.fromkeys(place.store for place in places.values()):
        mine = [number for number, place in places.items() if place.store is store]
        try:
            contents = store.read_many([(places[n].key(METRICS), 0, _TOO_MANY) for n in mine])
        except StoreError:  # one that cannot be read is not to cost the others
            contents = [_read_file(places[n], facts[n].name, complaints) for n in mine]
        for number, content in zip(mine, contents, strict=True):
            found[number] = content
    return found


def _find_place(history: History, facts: TaskFacts, complaints: list[str]) -> Outputs | None:
    try:
        return find_outputs(history, facts.task, facts.token, facts.record, is_newest=facts.is_over)
    except (StoreError, SettingsError) as error:  # one that cannot be read
        complaints.append(f"{facts.name}: {METRICS} left out: {error}")
        return None


def _read_file(place: Outputs, name: str, complaints: list[str]) -> bytes | None:
    try:
        return place.store.read(place.key(METRICS), 0, _TOO_MANY)
    except StoreError as error:
        complaints.append(f"{name}: {METRICS} left out: {error}")
        return None


def _read_metrics(name: str, written: bytes | None, complaints: list[str]) -> dict[str, Cell]:
    """The object that a task wrote, flat; empty where it wrote none."""
    if written is None:
        return {}
    if len(written) == _TOO_MANY:
        complaints.append(f"{name}: {METRICS} left out: it is larger than 16 MB")
        return {}
    try:
        content = json.loads(written)
    except (ValueError, RecursionError) as error:
        complaints.append(f"{name}: {METRICS} left out: {error}")
        return {}
    if not isinstance(content, dict):
        complaints.append(f"{name}: {METRICS} left out: it is no JSON object")
        return {}
    found = dict(_flatten(content))
    for key in [key for key, value in found.items() if not _can_be_written(key, value)]:
        complaints.append(f"{name}: {key!r} of {METRICS} left out: it cannot be written")
        del found[key]
    return found


def _can_be_written(name: str, value: Cell) -> bool:
    """Whether it is UTF-8, which JSON with escapes need not be."""
    try:
        msgspec.json.encode((name, value))
    except (UnicodeEncodeError, OverflowError, RecursionError):
        return False
    return True


def _flatten(content: Mapping[str, Json]) -> Iterator[tuple[str, Cell]]:
    """`{"a": {"b": 1}}` as `a.b`."""
    waiting = collections.deque(content.items())
    while waiting:
        name, value = waiting.popleft()
        if isinstance(value, dict):
            waiting.extendleft((f"{name}.{key}", value[key]) for key in reversed(value))
        else:
            yield name, value
