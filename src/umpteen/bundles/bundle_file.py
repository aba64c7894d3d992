"""The file of a bundle, as milex-scheduler has it: JSON, by job a program and what it needs.

Files may be written by hand. What is wrong is named with the file and the field.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from umpteen._version import __version__
from umpteen.bundles.bundle import Argument, BundleJob
from umpteen.errors import InputError, SettingsError, UmpteenError, nearest_hint
from umpteen.job.slurm_options import parse_script_options
from umpteen.job.spec import check_job_name
from umpteen.system.whole_files import read_file
from umpteen.units import refuse_value

__all__ = ["check_arguments", "decode_jobs", "encode_jobs", "parse_jobs", "write_job"]

_SCALARS = (str, int, float, bool, type(None))
_WRITER = "umpteen"
_KEYS = (
    "name", "script", "script_args", "dependencies", "pre-commands", "pre_commands", "slurm",
    _WRITER,
)  # fmt: skip
# milex-scheduler writes these whether they are given or not.
_USUAL_OPTIONS = ("array", "tasks", "cpus_per_task", "gres", "mem", "time")


def decode_jobs(path: str) -> Mapping[str, Any]:
    """The JSON object of a file; raises InputError where it is none."""
    try:
        found = json.loads(read_file(path).decode(), object_pairs_hook=_refuse_twice)
    except InputError as error:
        raise InputError(error.message, file=path, field=error.field) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    except json.JSONDecodeError as error:
        raise InputError(error.msg, file=path, line=error.lineno, column=error.colno) from None
    except (ValueError, RecursionError):  # such as a number of more digits than Python reads
        raise InputError("is no JSON text", file=path) from None
    if not isinstance(found, dict):
        raise InputError("is no JSON object of jobs", file=path)
    return found


def _refuse_twice(pairs: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    """An object of JSON; raises InputError where a key stands there twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"the key {key!r} stands there twice", field=key)
        found[key] = value
    return found


def encode_jobs(jobs: Mapping[str, Any]) -> str:
    """The text of a file."""
    return json.dumps(jobs, indent=4) + "\n"


def write_job(job: BundleJob) -> Mapping[str, Any]:
    """What a file says of a job, with the words of milex-scheduler."""
    options = {key.replace("-", "_"): value or True for key, value in job.slurm.items()}
    if "ntasks" in options:
        options["tasks"] = options.pop("ntasks")
    return {
        "name": job.name,
        "script": job.script,
        "script_args": job.arguments,
        "dependencies": list(job.dependencies) or None,
        "pre-commands": list(job.pre_commands) or None,
        "slurm": {**dict.fromkeys(_USUAL_OPTIONS), **options},
        _WRITER: __version__,
    }


def parse_jobs(jobs: Mapping[str, Any], path: str) -> dict[str, BundleJob]:
    """The jobs that a file has; raises InputError."""
    found = {}
    for name, entry in jobs.items():
        try:
            check_job_name(name)
            found[name] = _parse_job(name, entry)
        except UmpteenError as error:
            field = error.field if isinstance(error, InputError) else name
            raise InputError(error.message, error.hint, file=path, field=field) from None
    return found


def _parse_job(name: str, entry: Any) -> BundleJob:
    if not isinstance(entry, Mapping):
        raise refuse_value(name, "an object", entry)
    for key in entry:
        if key not in _KEYS:
            field = f"{name}.{key}"
            raise InputError(f"unknown key {field!r}", nearest_hint(key, _KEYS), field=field)
    script = entry.get("script")
    if script is None or script == "":
        field = f"{name}.script"
        raise InputError(f"{field!r} is missing", "it names the program", field=field)
    arguments = check_arguments(_get_object(entry, name, "script_args"), f"{name}.script_args")
    if _WRITER not in entry:
        arguments = {key: _unquote_argument(value) for key, value in arguments.items()}
    before = _check_texts(entry, name, "pre-commands")
    also = _check_texts(entry, name, "pre_commands")  # as milex-scheduler's own reader spells it
    return BundleJob(
        name=name,
        script=_check_text(script, f"{name}.script"),
        arguments=arguments,
        dependencies=_check_texts(entry, name, "dependencies"),
        pre_commands=before if before == also else (*before, *also),
        slurm=_parse_slurm(_get_object(entry, name, "slurm"), f"{name}.slurm"),
    )


def check_arguments(given: Mapping[str, Any], field: str) -> dict[str, Argument]:
    """Values that a script can give to a program. Raises InputError."""
    for key, value in given.items():
        _check_text(key, field)
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, _SCALARS):
                raise refuse_value(f"{field}.{key}", "a text, a number or a list of such", item)
            _check_text(str(item), f"{field}.{key}")
    return dict(given)


def _unquote_argument(value: Argument) -> Argument:
    if isinstance(value, list):
        return [_unquote(item) if isinstance(item, str) else item for item in value]
    return _unquote(value) if isinstance(value, str) else value


def _unquote(text: str) -> str:
    """A value that milex-scheduler has quoted, as it was.

    It quotes what is typed before the program's own parser sees it, and puts values into scripts
    as they are. So what is exactly as it quotes loses its quotes here; all else, such as defaults
    with blanks or with `$`, is taken as it stands. What umpteen writes was never quoted.
    """
    if not text.startswith("'"):
        return text
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    return words[0] if len(words) == 1 and shlex.quote(words[0]) == text else text


def _parse_slurm(given: Mapping[str, Any], field: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in given.items():
        try:
            found.update(parse_script_options({key: value}))
        except SettingsError as error:
            place = f"{field}.{key}"
            raise InputError(f"{place}: {error}", error.hint, field=place) from None
    return found


def _get_object(entry: Mapping[str, Any], name: str, key: str) -> Mapping[str, Any]:
    given = entry.get(key)
    if given is not None and not isinstance(given, Mapping):
        raise refuse_value(f"{name}.{key}", "an object", given)
    return given or {}


def _check_texts(entry: Mapping[str, Any], name: str, key: str) -> tuple[str, ...]:
    given, field = entry.get(key), f"{name}.{key}"
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise refuse_value(field, "a list of texts", given)
    return tuple(_check_text(each, field) for each in given)


def _check_text(value: Any, field: str) -> str:
    """Text that a script can hold."""
    if not isinstance(value, str):
        raise refuse_value(field, "text", value)
    if "\0" in value or any("\ud800" <= sign <= "\udfff" for sign in value):
        raise InputError(f"{field!r} has a sign that no command line can have", field=field)
    return value
