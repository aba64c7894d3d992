"""A batch file from elsewhere becomes a batch of a job in a store.

Such a file has `nprocs`, `remote_output_path` and `runs` and no `umpteen` key. Its id is the
hash of its content, so that the same file is the same batch wherever it starts. It stands in
the part that travels because a machine may have nothing but the runner and such files.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import Any

from umpteen.errors import InputError
from umpteen.lease import local_lock
from umpteen.records import format_ranges
from umpteen.results.base import JOB, Store, batch_key, handed_key, parse_numbers, tasks_key
from umpteen.results.opening import open_store, parse_address
from umpteen.task import FORMAT_VERSION

__all__ = ["DEFAULT_SLOTS", "adopt_batch", "build_batch_id", "read_address", "run_output"]

DEFAULT_SLOTS = 16
_RUN_KEYS = ("cmd", "remote_output_path", "local_results_dir")


def build_batch_id(content: bytes) -> str:
    """The id of a batch file that is not ours: 16 hex digits of its content's hash."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def read_address(path: str) -> str:
    """The address of the store that a JSON file's batch is for. Raises as `adopt_batch`."""
    folder = _find_own_store(path)
    return folder or str(_read(path)[1]["remote_output_path"])


def _find_own_store(path: str) -> str:
    """The store that has the file among its batches; empty where none has."""
    folder, name = os.path.split(os.path.abspath(path))
    own = os.path.join(os.sep, ".umpteen", "batches")
    return folder[: -len(own)] if folder.endswith(own) and name.endswith(".json") else ""


def adopt_batch(path: str, batch_id: str = "") -> tuple[Store, list[str]]:
    """The store and the batch that a JSON file stands for; both are made if they are new.

    A file in a store's own `.umpteen/batches/` is that store's batch. `batch_id` replaces the
    hash of the content (where the content was YAML). Raises InputError, SettingsError and
    StoreError.
    """
    if folder := _find_own_store(path):
        return open_store(folder), [os.path.basename(path)[: -len(".json")]]
    content, parsed = _read(path)
    if "umpteen" in parsed:
        own_part = parsed["umpteen"]
        return open_store(parsed["remote_output_path"]), [str(own_part["batch"])]
    store = open_store(parsed["remote_output_path"])
    batch = batch_id or build_batch_id(content)
    digest = hashlib.blake2b(store.address.encode(), digest_size=8).hexdigest()
    with local_lock(f"hand-in-{digest}"):
        if store.read(batch_key(batch)) is None:
            _write(store, batch, parsed)
    return store, [batch]


def _read(path: str) -> tuple[bytes, dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        parsed = json.loads(content)
    except json.JSONDecodeError as error:
        raise InputError(error.msg, file=path, line=error.lineno, column=error.colno) from error
    except UnicodeDecodeError as error:
        raise InputError("this is not UTF-8 text", file=path) from error
    if not isinstance(parsed, dict):
        raise InputError("a batch file is an object with 'runs'", file=path)
    _check(path, parsed)
    return content, parsed


def _check(path: str, parsed: dict[str, Any]) -> None:
    if not isinstance(parsed.get("remote_output_path"), str):
        raise InputError("remote_output_path is missing", file=path, field="remote_output_path")
    slots = parsed.get("nprocs", DEFAULT_SLOTS)
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
        raise InputError(f"nprocs is {slots!r}, not 1 or more", file=path, field="nprocs")
    runs = parsed.get("runs")
    if not isinstance(runs, list) or not runs:
        raise InputError("there are no runs", file=path, field="runs")
    outputs: dict[str, int] = {}
    for number, run in enumerate(runs):
        if not isinstance(run, dict) or not isinstance(run.get("cmd"), str):
            raise InputError(f"run {number} has no cmd", file=path, field="cmd")
        output = run_output(parsed["remote_output_path"], run, number)
        if output in outputs:
            raise InputError(
                f"runs {outputs[output]} and {number} have one remote_output_path, {output}",
                "give each run a path of its own",
                file=path,
                field="remote_output_path",
            )
        outputs[output] = number


def run_output(top: str, run: dict[str, Any], number: int) -> str:
    """Where a run's outputs go: its own path, else its number below the top one."""
    given = run.get("remote_output_path")
    return str(given).rstrip("/") if given else f"{top.rstrip('/')}/{number}"


def _write(store: Store, batch: str, parsed: dict[str, Any]) -> None:
    """Put the job (if there is none), its tasks, the batch, and the hand-in that names it."""
    top = store.address
    name = os.path.basename(store.address)
    number = len(parse_numbers(store.list(".umpteen/handed"), ".json")) + 1
    written = parsed["remote_output_path"]
    # Whole addresses, as others will look for them from elsewhere.
    outputs = [
        parse_address(run_output(written, run, place)) for place, run in enumerate(parsed["runs"])
    ]
    names = [_task_name(top, output, place) for place, output in enumerate(outputs)]
    indices, lines = _number_tasks(parsed["runs"], names, outputs, _read_commands(store, number))
    order = sorted(range(len(indices)), key=indices.__getitem__)
    ranges = format_ranges(indices[place] for place in order)
    job = {"version": FORMAT_VERSION, "name": name, "created": round(time.time(), 3)}
    slots = parsed.get("nprocs", DEFAULT_SLOTS)
    store.create(JOB, _encode({**job, "settings": {"address": top, "slots": slots}}))
    store.delete(tasks_key(number))  # of a start that was killed before it handed in
    store.create(tasks_key(number), b"".join(_encode(line) + b"\n" for line in lines))
    content = {
        "nprocs": slots,
        "remote_output_path": top,
        "runs": [_build_run(parsed["runs"][place], outputs[place]) for place in order],
        "umpteen": {
            "version": FORMAT_VERSION,
            "job": name,
            "batch": batch,
            "hand_in": number,
            "indices": ranges,
            "names": [names[place] for place in order],
        },
    }
    store.create(batch_key(batch), _encode(content))
    store.create(handed_key(number), _encode(_build_hand_in(number, batch, ranges, lines)))


def _number_tasks(
    runs: list[dict[str, Any]],
    names: list[str],
    outputs: list[str],
    known: dict[str, tuple[int, str]],
) -> tuple[list[int], list[dict[str, Any]]]:
    """(the index of each run, lines for those that are new or not what they were)."""
    indices: list[int] = []
    lines: list[dict[str, Any]] = []
    count = len(known)
    for run, name, output in zip(runs, names, outputs):
        line = {"command": run["cmd"], "name": name, "output": output}
        if name not in known:
            indices.append(count)
            count += 1
            lines.append(line)
            continue
        index, command = known[name]
        indices.append(index)
        if command != run["cmd"]:
            lines.append({**line, "index": index})
    return indices, lines


def _build_run(run: dict[str, Any], output: str) -> dict[str, Any]:
    return {**{key: run[key] for key in _RUN_KEYS if key in run}, "remote_output_path": output}


def _build_hand_in(
    number: int, batch: str, ranges: str, lines: list[dict[str, Any]]
) -> dict[str, Any]:
    changed = sorted(line["index"] for line in lines if "index" in line)
    return {
        "hand_in": number,
        "time": round(time.time(), 3),
        "executor": "",
        "mark": os.urandom(6).hex(),
        "tasks": len(lines) - len(changed),
        "changed": format_ranges(changed),
        "batches": [{"batch": batch, "indices": ranges}],
    }


def _task_name(top: str, output: str, number: int) -> str:
    return output[len(top) + 1 :] if output.startswith(top + "/") else str(number)


def _read_commands(store: Store, before: int) -> dict[str, tuple[int, Any]]:
    """By name, the index and the command of each task that earlier hand-ins put there.

    The command of one that was dropped since is empty, so that it is put there anew.
    """
    known: dict[str, tuple[int, Any]] = {}
    names: list[str] = []
    for number in range(1, before):
        for text in (store.read(tasks_key(number)) or b"").splitlines():
            line = json.loads(text)
            if "index" not in line:
                names.append(line.get("name") or str(len(names)))
                known[names[-1]] = (len(names) - 1, line["command"])
            else:
                command = "" if line.get("dropped") else line["command"]
                known[names[line["index"]]] = (line["index"], command)
    return known


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
