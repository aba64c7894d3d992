"""What runs on a host behind ssh: it does there what it is asked for over its stdin and stdout.

Its text is sent to `python3` at each connection, so that a host needs nothing of ours; so it
imports nothing of ours. What more it is to do comes in a zip file, which `load` takes calls from.
A message is a line of JSON, and behind it as many bytes as its `size` says. `HostConnection` is
the other side.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict

__all__ = ["PART_BYTES", "SIGN"]

SIGN = "umpteen-agent"  # what its first line begins with; a login shell may print before it
PART_BYTES = 4 << 20  # of a file in one answer, at most
_AT_ONCE = 16


class Request(TypedDict):
    """What is asked for: a call of CALLS, with its arguments; behind it so many bytes."""

    id: int
    call: str
    given: Mapping[str, Any]
    size: int


class Ran(TypedDict):
    """How a command ended, and what it printed."""

    code: int
    out: str
    said: str


def write_part(body: bytes, path: str, is_first: bool, is_private: bool) -> None:
    """Put bytes at the end of a file, which its first part makes."""
    flags = os.O_WRONLY | (os.O_CREAT | os.O_EXCL if is_first else os.O_APPEND)
    if is_first:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    file = os.open(path, flags, 0o600 if is_private else 0o666)
    with os.fdopen(file, "wb") as target:
        target.write(body)


def give_name(body: bytes, path: str, target: str, is_new: bool) -> bool:
    """Give a file that is whole its name; false where it is to be new, and is not."""
    del body
    if not is_new:
        os.replace(path, target)
        return True
    try:
        os.link(path, target)
    except FileExistsError:
        return False
    finally:
        os.unlink(path)
    return True


def measure(body: bytes, path: str) -> int:
    """The bytes of a file."""
    del body
    return os.stat(path).st_size


def read(body: bytes, path: str, offset: int, size: int) -> bytes:
    """At most so many bytes from there on."""
    del body
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(file, "rb") as source:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise IsADirectoryError(21, "Is no file", path)
        source.seek(offset)
        return source.read(min(size, PART_BYTES))


def list_folder(body: bytes, path: str) -> list[tuple[str, int, bool]]:
    """Name, bytes, and whether it is a folder, of each that is in a folder."""
    del body
    with os.scandir(path) as entries:
        return [_describe(entry) for entry in entries]


def _describe(entry: os.DirEntry[str]) -> tuple[str, int, bool]:
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # removed meanwhile
        return entry.name, 0, False
    is_folder = stat.S_ISDIR(found.st_mode)
    return entry.name, 0 if is_folder else found.st_size, is_folder


def walk(body: bytes, path: str) -> list[tuple[str, int]]:
    """Path and bytes of each file below a folder."""
    found: list[tuple[str, int]] = []
    folders = [""]
    while folders:
        above = folders.pop()
        try:
            listed = list_folder(body, os.path.join(path, above))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name, size, is_folder in listed:
            below = above + name
            if is_folder:
                folders.append(below + "/")
            else:
                found.append((below, size))
    return found


def remove(body: bytes, path: str) -> None:
    """Remove a file, if it is there."""
    del body
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_folder(body: bytes, path: str) -> None:
    """Remove a folder, if it is there and empty."""
    del body
    with contextlib.suppress(OSError):
        os.rmdir(path)


def move(body: bytes, path: str, target: str) -> None:
    """Rename it; nothing if it is not there."""
    del body
    if os.path.lexists(path):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(path, target)


def run(body: bytes, words: list[str], environment: dict[str, str | None], limit_s: float) -> Ran:
    """Run a command to its end; what it said, and its exit code. 124: it took too long."""
    both = dict(os.environ, **environment)
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: value for name, value in both.items() if value is not None},
        start_new_session=True,
    )
    try:
        out, said = process.communicate(body, timeout=limit_s)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, said = process.communicate()
        code = 124
    return {"code": code, "out": out.decode("utf-8", "replace"),
            "said": said.decode("utf-8", "replace")}  # fmt: skip


def find_own(body: bytes, above: str, name: str) -> list[Any]:
    """The folder of this user's own, for what umpteen needs there, and whether a file is in it.

    above: where it is; empty: as `system.locks` has it. From now on processes find it there, too.
    """
    del body
    above = os.path.expanduser(above or os.environ.get("UMPTEEN_LEASES") or "/var/tmp")
    own = f"umpteen-{os.getuid()}"
    folder = above if os.path.basename(above.rstrip("/")) == own else os.path.join(above, own)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise PermissionError(13, f"{folder} is not yours", folder)
    os.environ["UMPTEEN_LEASES"] = folder
    return [folder, os.path.exists(f"{folder}/{name}")]


def load(body: bytes, path: str, module: str) -> None:
    """Take further calls from a module of a zip file."""
    del body
    if path not in sys.path:
        sys.path.append(path)
    CALLS.update(importlib.import_module(module).CALLS)


CALLS: dict[str, Any] = {
    call.__name__: call
    for call in (
        write_part, give_name, measure, read, list_folder, walk, remove, remove_folder, move, run,
        find_own, load,
    )
}  # fmt: skip


def answer(request: Request, body: bytes, lock: threading.Lock) -> None:
    """Do what a message asks for, and send what came of it: a value, bytes, or both."""
    found: Any
    content = b""
    try:
        found = CALLS[request["call"]](body, **request["given"])
        if isinstance(found, bytes):
            found, content = None, found
        elif isinstance(found, tuple):
            found, content = found
        told: dict[str, Any] = {"found": found}
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 5)
        told = {"errno": error.errno or 5, "reason": reason}
    except Exception as error:
        told = {"errno": 22, "reason": f"{type(error).__name__}: {error}"}
    told.update(id=request["id"], size=len(content))
    with lock:
        send(told, content)


def send(told: Mapping[str, Any], content: bytes = b"") -> None:
    """A line of JSON and what is behind it."""
    out = sys.stdout.buffer
    out.write(json.dumps(told).encode() + b"\n" + content)
    out.flush()


def main() -> None:
    """Answer until there is nobody who asks."""
    signal.signal(signal.SIGINT, lambda *_: None)  # not ignored, as what is run here would be, too
    source, lock = sys.stdin.buffer, threading.Lock()
    sys.stdout.buffer.write(f"\n{SIGN} ".encode())
    send({"home": os.path.expanduser("~"), "version": list(sys.version_info[:2])})
    pool = ThreadPoolExecutor(_AT_ONCE)
    for line in source:
        request = json.loads(line.decode())
        pool.submit(answer, request, source.read(request["size"]), lock)
    os._exit(0)


if __name__ == "__main__":
    main()
