"""A batch file from elsewhere becomes a batch of a job in a store.

Such a file has `nprocs`, `remote_output_path` and `runs`, and of an `umpteen` key no more than
the split that it is of. Its id is the hash of its content, so that the same file is the same
batch wherever it starts; where that has ended, what is not done makes another batch. It stands
in the part that travels because a machine may have nothing but the runner and such files.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

from umpteen.errors import InputError, StoreError
from umpteen.model.batch import GIVEN_KEYS, BatchFile, GivenBatch, GivenRun, RunEntry
from umpteen.model.forms import FormError, get, load_json, table_of, text, token, whole
from umpteen.model.names import find_malformed_name
from umpteen.model.ranges import format_ranges
from umpteen.model.states import FORMAT_VERSION, IS_FINAL, SLOTS_MOST
from umpteen.store.address import check_job_address, is_root, open_store, parse_address
from umpteen.store.base import Store
from umpteen.store.identity import build_id
from umpteen.store.job_files import SubmissionPart, damaged, read_submissions, write_batch_file
from umpteen.store.layout import BATCHES, JOB, handed_key, tasks_key
from umpteen.store.recorded import Past, read_past
from umpteen.store.records import list_starts, read_start
from umpteen.store.status_codes import find_left, judge
from umpteen.store.submission_lock import OwnFiles, SubmissionLock, submission_lock
from umpteen.system.host import read_machine
from umpteen.system.whole_files import read_file

__all__ = [
    "DEFAULT_SLOTS",
    "Adopted",
    "ImportedFile",
    "adopt_batch",
    "build_batch_id",
    "read_import",
]

DEFAULT_SLOTS = 16


class Adopted(NamedTuple):
    """What a file stands for: batches of a store, and what of it they leave alone, in words."""

    store: Store
    batches: list[str]
    note: str = ""


def build_batch_id(content: bytes) -> str:
    """The id of a batch file that is not ours: 16 hex digits of its content's hash."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


class ImportedFile(NamedTuple):
    """A JSON file with a batch: one of a store's own, or one from elsewhere with what it says."""

    path: str
    address: str  # of the store that the batch is for
    own: str = ""  # the batch of that store that it is; empty: none yet
    digest: str = ""  # of what it holds; empty where `own` says which it is
    given: GivenBatch | None = None


def read_import(path: str) -> ImportedFile:
    """What a JSON file says; raises InputError.

    A file in a store's own `.umpteen/batches/` is that store's batch.
    """
    folder, name = os.path.split(os.path.abspath(path))
    own = f"/{BATCHES}"
    if folder.endswith(own) and name.endswith(".json"):
        return ImportedFile(path, folder[: -len(own)], name[: -len(".json")])
    content, given = _read(path)
    batch = _read_own(path, given)
    if batch:
        return ImportedFile(path, given["remote_output_path"], batch)
    return ImportedFile(path, given["remote_output_path"], "", build_batch_id(content), given)


def adopt_batch(file: ImportedFile, batch_id: str = "") -> Adopted:
    """The store and the batches that a file stands for; they are made if they are new.

    `batch_id` replaces the hash of the content (where the content was YAML). No batch where all
    of it is done. Raises InputError, SettingsError and StoreError.
    """
    store = open_store(file.address)
    if file.given is None:
        return Adopted(store, [file.own])
    check_job_address(store.address)
    _refuse_places(file.path, store.address, file.given)
    _put_job(store, file.given)
    with submission_lock(store) as lock:
        return _adopt(store, lock, batch_id or file.digest, file.given)


def _adopt(store: Store, lock: SubmissionLock, first: str, given: GivenBatch) -> Adopted:
    """`first` is its batch; once that has ended, another that has what is not done."""
    hand_ins = read_submissions(store)
    handed = [each for hand_in in hand_ins for each in hand_in.batches]
    there = {each.batch for each in handed}
    newest, following = "", first
    while following in there:
        newest, following = following, build_batch_id(following.encode())
    known = _read_known(store, hand_ins)
    runs = _list_runs(store.address, given, known)
    past = read_past(store, handed, {run.task for run in runs if run.task < known.count})
    if newest and not _has_ended(store, newest):
        return Adopted(store, [newest], _tell_ended(runs, past))
    done = _find_done(runs, past, known) if newest else set()
    note = _tell_done(len(done)) if done else ""
    if len(done) == len(runs):
        return Adopted(store, [], f"{note or 'there are no runs'}; nothing to do")
    slots = _count_slots(given)
    lock.check()
    left = [run for run in runs if run.task not in done]
    _write(store, len(hand_ins) + 1, following, slots, left, past, known)
    return Adopted(store, [following], note and f"{note} and left alone")


def _has_ended(store: Store, batch: str) -> bool:
    """Whether its newest start said so; else somebody may be at it, or it is to go on."""
    starts = list_starts(store, batch)
    return bool(starts) and read_start(store, batch, starts[-1], read_machine()).ended is not None


def _tell_ended(runs: Sequence[_Run], past: Mapping[int, Past]) -> str:
    ended = sum(run.task in past and IS_FINAL[past[run.task].state] for run in runs)
    if not ended:
        return ""
    return (
        "1 run has ended and is left alone"
        if ended == 1
        else f"{ended:,} runs have ended and are left alone"
    )


def _tell_done(runs: int) -> str:
    return "1 run is done" if runs == 1 else f"{runs:,} runs are done"


def _find_done(runs: Sequence[_Run], past: Mapping[int, Past], known: _Known) -> set[int]:
    """Indices of those whose records and status files both say so."""
    asked = [run for run in runs if known.commands.get(run.task) == run.content["cmd"]]
    lefts = find_left([run.output for run in asked])
    return {
        run.task
        for run, left in zip(asked, lefts)
        if (found := past.get(run.task)) and judge(found.state, found.left, left) == 0
    }


def _read_own(path: str, given: GivenBatch) -> str:
    """The batch of a store that a file says it is; empty where it has no more than its split."""
    try:
        own = table_of(given.get("umpteen", {"split": ""}))
        return "" if "split" in own else get(own, "batch", token)
    except FormError as error:
        raise InputError(f"'umpteen' names no batch: {error}", file=path, field="umpteen") from None


def _refuse_places(path: str, top: str, given: GivenBatch) -> None:
    """Raises InputError where outputs would lie at the root, or a run's have no task's name."""
    field = "remote_output_path"
    own = (run.get("remote_output_path") or "" for run in given["runs"])
    if any(map(is_root, [top, *own])):
        raise InputError(f"{field} cannot be the root folder itself", file=path, field=field)
    outputs = (
        _find_output(given["remote_output_path"], run, n) for n, run in enumerate(given["runs"])
    )
    places = (parse_address(output) for output in outputs)
    below = [place[len(top) + 1 :] for place in places if place.startswith(f"{top}/")]
    if bad := find_malformed_name(below):
        raise InputError(bad.message, bad.hint, file=path, field=field)


def _read(path: str) -> tuple[bytes, GivenBatch]:
    try:
        content = read_file(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        parsed = json.loads(content)
    except json.JSONDecodeError as error:
        raise InputError(error.msg, file=path, line=error.lineno, column=error.colno) from error
    except UnicodeDecodeError as error:
        raise InputError("this is not UTF-8 text", file=path) from error
    except (ValueError, RecursionError) as error:
        raise InputError("this is no JSON that can be read", file=path) from error
    return content, _check(path, parsed)


def _check(path: str, parsed: object) -> GivenBatch:
    """The batch that a JSON document is; raises InputError where it is none."""
    if not isinstance(parsed, dict):
        raise InputError("a batch file is an object with 'runs'", file=path)
    top = parsed.get("remote_output_path")
    if not isinstance(top, str):
        raise InputError("remote_output_path is missing", file=path, field="remote_output_path")
    slots = parsed.get("nprocs", DEFAULT_SLOTS)
    if not isinstance(slots, int) or isinstance(slots, bool) or not 1 <= slots <= SLOTS_MOST:
        message = f"nprocs is {slots!r}, not from 1 to {SLOTS_MOST}"
        raise InputError(message, file=path, field="nprocs")
    runs = parsed.get("runs")
    if not isinstance(runs, list):
        raise InputError("there are no runs", file=path, field="runs")
    outputs: dict[str, int] = {}
    for number, run in enumerate(runs):
        if not isinstance(run, dict) or not isinstance(run.get("cmd"), str):
            raise InputError(f"run {number} has no cmd", file=path, field="cmd")
        for field in ("remote_output_path", "local_results_dir"):
            if not isinstance(run.get(field, ""), (str, type(None))):
                raise InputError(f"{field} of run {number} is no text", file=path, field=field)
        output = _find_output(top, cast(GivenRun, run), number)
        if output in outputs:
            raise InputError(
                f"runs {outputs[output]} and {number} have one remote_output_path, {output}",
                "give each run a path of its own",
                file=path,
                field="remote_output_path",
            )
        outputs[output] = number
    return cast(GivenBatch, parsed)


def _find_output(top: str, run: GivenRun, number: int) -> str:
    """Where a run's outputs go: its own path, else its number below the top one."""
    given = run.get("remote_output_path")
    return given.rstrip("/") if given else f"{top.rstrip('/')}/{number}"


class _Run(NamedTuple):
    """One of a file's runs. task: its index, which may be new. output: a whole address.

    written: the same as the file has it, or as `sc` makes it of the file's words.
    """

    task: int
    name: str
    output: str
    written: str
    content: GivenRun


class _Known:
    """The tasks that a job has. indices: by whole address of their outputs; commands: by index.

    The command of one that was dropped since is empty, so that it is put there anew.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.indices: dict[str, int] = {}
        self.commands: dict[int, object] = {}

    @property
    def count(self) -> int:
        """How many tasks were ever added."""
        return len(self.names)


def _read_known(store: Store, hand_ins: Sequence[SubmissionPart]) -> _Known:
    known = _Known()
    keys = [tasks_key(hand_in.number, hand_in.segment) for hand_in in hand_ins]
    for key, content in zip(keys, store.read_many([(key, 0, -1) for key in keys])):
        try:
            for line in (content or b"").splitlines():
                _learn(known, store, table_of(load_json(line)))
        except FormError as error:
            raise damaged(store.path(key), error) from error
    return known


def _learn(known: _Known, store: Store, line: Mapping[str, object]) -> None:
    """Take in a line of tasks; raises FormError."""
    index = whole(line.get("index", known.count), most=known.count, what="'index'")
    if index == known.count:
        known.names.append(text(line.get("name") or str(index)))
    if line.get("dropped"):
        known.commands[index] = ""
        return
    known.commands[index] = line.get("command")
    output = text(line.get("output") or "")
    known.indices[parse_address(output) if output else store.path(known.names[index])] = index


def _list_runs(top: str, given: GivenBatch, known: _Known) -> list[_Run]:
    """Those of a file, known again by where their outputs go, else with the next free indices."""
    runs: list[_Run] = []
    taken = set(known.names)
    count = known.count
    top_written = given["remote_output_path"]
    for number, run in enumerate(given["runs"]):
        output = parse_address(_find_output(top_written, run, number))
        written = run.get("remote_output_path") or os.path.join(top_written, str(number))
        index = known.indices.get(output)
        if index is None:
            name = _choose_name(top, output, number, count, taken)
            index, count = count, count + 1
            taken.add(name)
        else:
            name = known.names[index]
        runs.append(_Run(index, name, output, written, run))
    return runs


def _choose_name(top: str, output: str, number: int, index: int, taken: set[str]) -> str:
    """Its place below the top; of one that lies elsewhere a number."""
    if output.startswith(top + "/"):
        name = output[len(top) + 1 :]
        if name not in taken:
            return name
    return next(
        str(n) for n in (number, *range(index, index + len(taken) + 1)) if str(n) not in taken
    )


def _put_job(store: Store, given: GivenBatch) -> None:
    """What the store is known by, if there is none there yet."""
    content = {
        "version": FORMAT_VERSION,
        "id": build_id(),
        "name": os.path.basename(store.address),
        "created": round(time.time(), 3),
        "settings": {"address": store.address, "slots": _count_slots(given)},
    }
    store.create(JOB, _encode(content))


def _count_slots(given: GivenBatch) -> int:
    return given.get("nprocs", DEFAULT_SLOTS)


def _write(
    store: Store,
    number: int,
    batch: str,
    slots: int,
    runs: Sequence[_Run],
    past: Mapping[int, Past],
    known: _Known,
) -> None:
    """Put its tasks, the batch, and the hand-in that names it."""
    top = store.address
    name = os.path.basename(store.address)
    runs = sorted(runs)
    lines = list(_build_lines(runs, known))
    ranges = format_ranges(run.task for run in runs)
    mark = os.urandom(6).hex()
    files = OwnFiles(store, mark)
    files.put(
        functools.partial(tasks_key, number),
        lambda: b"".join(_encode(line) + b"\n" for line in lines),
    )
    content: BatchFile = {
        "nprocs": slots,
        "remote_output_path": top,
        "runs": [_build_run(run) for run in runs],
        "umpteen": {
            "version": FORMAT_VERSION,
            "job": name,
            "batch": batch,
            "hand_in": number,
            "indices": ranges,
            "names": [run.name for run in runs],
            "written": {
                str(place): run.written
                for place, run in enumerate(runs)
                if run.written != run.output
            },
            "attempts": {
                str(place): [past[run.task].attempt, past[run.task].runner]
                for place, run in enumerate(runs)
                if run.task in past
            },
        },
    }
    write_batch_file(store, content)  # maybe over that of a start that was killed before this
    handed = _build_hand_in(number, batch, ranges, lines)
    if not store.create(
        handed_key(number), _encode({**handed, "mark": mark, "segment": files.segment})
    ):
        files.take_back()
        raise StoreError(
            f"{store.path(handed_key(number))} was written by somebody else at the same time",
            "run the same command again",
        )
    files.put_as_before()


def _build_lines(runs: Sequence[_Run], known: _Known) -> Iterator[dict[str, object]]:
    """Tasks that are new, in the order of their indices, and those that are not what they were."""
    for index, name, output, _, content in runs:
        line: dict[str, object] = {
            "command": content["cmd"], "name": name, "output": output,
        }  # fmt: skip
        if content.get("local_results_dir"):
            line["results_dir"] = content["local_results_dir"]
        if index >= known.count:
            yield line
        elif known.commands[index] != content["cmd"]:
            yield {**line, "index": index}


def _build_run(run: _Run) -> RunEntry:
    content: Mapping[str, object] = run.content
    given = {key: content[key] for key in GIVEN_KEYS if key in content}
    return cast(RunEntry, {**given, "remote_output_path": run.output})


def _build_hand_in(
    number: int, batch: str, ranges: str, lines: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    changed = sorted(index for line in lines if isinstance(index := line.get("index"), int))
    return {
        "hand_in": number,
        "time": round(time.time(), 3),
        "executor": "",
        "tasks": len(lines) - len(changed),
        "changed": format_ranges(changed),
        "batches": [{"batch": batch, "indices": ranges}],
    }


def _encode(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
