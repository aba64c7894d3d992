"""umpteen's own file of machines, `config.toml`: a table for each, `[machines.NAME]`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from umpteen.config.machines import FIELDS
from umpteen.errors import InputError, SettingsError, nearest_hint
from umpteen.job.settings import Setting
from umpteen.job.slurm_options import parse_options
from umpteen.system.whole_files import read_file
from umpteen.units import refuse_value

__all__ = ["read_toml"]

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_KEYS = (*FIELDS, "slurm")


def read_toml(path: str) -> dict[str, dict[str, Setting]]:
    """By machine what it says of it; nothing where there is no such file. Raises InputError."""
    try:
        text = read_file(path).decode()
        found = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text", "save it as UTF-8", file=path) from None
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, str(error)) from None
    except ValueError:
        raise InputError("a number has too many digits", file=path) from None
    except RecursionError:
        raise InputError("the values are nested too deeply", file=path) from None
    return _Tables(path, text).read(found)


def _syntax_error(path: str, message: str) -> InputError:
    at = _AT.search(message)
    said = message[: at.start()] if at else message
    if not at or not at[1]:
        return InputError(f"{said} at its end", file=path)
    return InputError(said, file=path, line=int(at[1]), column=int(at[2]))


class _Tables:
    """The tables of one file, and its text, by which the line of what is wrong is found."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.lines = path, text.splitlines()

    def read(self, found: Mapping[str, Any]) -> dict[str, dict[str, Setting]]:
        self._check_keys(found, ("machines",), ())
        machines = found.get("machines", {})
        self._check_table(machines, ("machines",))
        return {name: self._read_machine(name, entry) for name, entry in machines.items()}

    def _read_machine(self, name: str, entry: Any) -> dict[str, Setting]:
        place = ("machines", name)
        self._check_table(entry, place)
        self._check_keys(entry, _KEYS, place)
        for key in entry.keys() & set(FIELDS):
            if not isinstance(entry[key], str):
                field = ".".join((*place, key))
                raise self._locate(refuse_value(field, "text", entry[key]), (*place, key))
        values = {key: entry[key] for key in FIELDS if key in entry}
        options = self._read_slurm(entry.get("slurm", {}), (*place, "slurm"))
        values.update({f"slurm.{option}": value for option, value in options.items()})
        return {key: Setting(value, self.path) for key, value in values.items()}

    def _read_slurm(self, given: Any, place: tuple[str, ...]) -> dict[str, str]:
        self._check_table(given, place)
        found: dict[str, str] = {}
        for key, value in given.items():
            try:
                found.update(parse_options({key: value}))
            except SettingsError as error:
                wrong = InputError(error.message, error.hint, field=".".join((*place, key)))
                raise self._locate(wrong, (*place, key)) from None
        return found

    def _check_table(self, given: Any, place: tuple[str, ...]) -> None:
        if not isinstance(given, Mapping):
            raise self._locate(refuse_value(".".join(place), "a table", given), place)

    def _check_keys(
        self, given: Mapping[str, Any], valid: tuple[str, ...], place: tuple[str, ...]
    ) -> None:
        for key in given:
            if key not in valid:
                field = ".".join((*place, key))
                wrong = InputError(f"unknown key {key!r}", nearest_hint(key, valid), field=field)
                raise self._locate(wrong, (*place, key))

    def _locate(self, error: InputError, place: tuple[str, ...]) -> InputError:
        """The error with this file and, where the key is written as usual, its line."""
        line = self._find_line(place)
        return InputError(error.message, error.hint, file=self.path, line=line, field=error.field)

    def _find_line(self, place: tuple[str, ...]) -> int | None:
        table: tuple[str, ...] = ()
        for number, line in enumerate(self.lines, 1):
            if head := re.match(r"\s*\[([^\[\]]+)\]", line):
                table = _split_key(head[1])
                if table == place:
                    return number
            elif (key := re.match(r"([^=#]+)=", line)) and (*table, *_split_key(key[1])) == place:
                return number
        return None


def _split_key(key: str) -> tuple[str, ...]:
    """The parts of a dotted key; one with a point in quotes is not found, and has no line."""
    return tuple(part.strip().strip("\"'") for part in key.split("."))
