"""A server in memory that speaks what `saturnfs`, the client of Saturn Cloud's storage, calls.

Like the real one it gives out addresses to put parts to and to get files from, lists in pages,
and answers 404 with a message where there is no such file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import urllib.parse
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

__all__ = ["Sfs", "SfsServer"]

_PART_BYTES = 5 * 1024 * 1024
_PARTS_AT_ONCE = 10
_TOKEN = "umpteen-token"
_Answer = tuple[int, Any]


class _File(NamedTuple):
    content: bytes
    time: str


@dataclass
class _Upload:
    """size: of all of it, None where the client does not know it yet."""

    owner: str
    path: str
    size: int | None
    part_bytes: int
    source: tuple[str, str] | None = None
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Sfs:
    """A place of a user's own, and how the client finds it."""

    server: SfsServer
    owner: str

    @property
    def address(self) -> str:
        """The address of a store there."""
        return f"sfs://{self.owner}/results/job"

    @property
    def environment(self) -> dict[str, str]:
        """What `saturnfs` reads when it is loaded."""
        return {"SATURN_BASE_URL": self.server.address, "SATURN_TOKEN": _TOKEN}

    def list(self) -> dict[str, bytes]:
        """What is in all files of the owner, by their paths."""
        files = dict(self.server.files)
        return {path: file.content for (owner, path), file in files.items() if owner == self.owner}

    def put(self, path: str, content: bytes) -> None:
        """Leave a file, as another tool does."""
        self.server.files[self.owner, path] = _File(content, _now())

    def remove(self, path: str) -> None:
        """Take a file away."""
        del self.server.files[self.owner, path]


class SfsServer:
    """The running server; a context manager.

    files: by owner and path. names_at_once: of a listing. asked: the requests so far.
    """

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], _File] = {}
        self.uploads: dict[str, _Upload] = {}
        self.names_at_once = 1000
        self.asked: list[str] = []
        server = self

        class Handler(_Handler):
            place = server

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def make_place(self) -> Sfs:
        """An empty place."""
        return Sfs(self, f"internal/u{uuid.uuid4().hex[:12]}")

    # --- what it answers --------------------------------------------------------------------

    def list_files(self, asked: dict[str, str]) -> _Answer:
        owner, prefix = asked["owner_name"], asked.get("prefix", "")
        is_flat = asked.get("delimited") == "False"
        paths = sorted(p for o, p in list(self.files) if o == owner and p.startswith(prefix))
        names: dict[str, None] = {}
        for path in paths:
            head, slash, _ = path[len(prefix) :].partition("/")
            names[path if is_flat else prefix + head + slash] = None
        left = [name for name in names if name > asked.get("last_key", "")]
        page = left[: self.names_at_once]
        return 200, {
            "dirs": [{"prefix": name} for name in page if name.endswith("/")],
            "files": [self._describe(owner, name) for name in page if not name.endswith("/")],
            "next_last_key": page[-1] if len(left) > len(page) else None,
        }

    def start(self, asked: dict[str, Any]) -> _Answer:
        source, size = None, asked.get("size")
        if copied := asked.get("copy_source"):
            source = (copied["owner_name"], copied["file_path"])
            if source not in self.files:
                return 404, {"message": "no such file to copy"}
            size = len(self.files[source].content)
        upload = uuid.uuid4().hex
        part_bytes = asked.get("part_size") or _PART_BYTES
        owner, path = asked["owner_name"], asked["file_path"]
        self.uploads[upload] = _Upload(owner, path, size, part_bytes, source)
        return 200, self._present(upload, 1, _PARTS_AT_ONCE, None)

    def resume(self, upload: str, asked: dict[str, str]) -> _Answer:
        first = int(asked.get("first_part", 1))
        last_bytes = int(asked["last_part_size"]) if "last_part_size" in asked else None
        last = int(asked.get("last_part", first + _PARTS_AT_ONCE - 1))
        return 200, self._present(upload, first, last, last_bytes)

    def _present(
        self, upload: str, first: int, last: int, last_bytes: int | None
    ) -> dict[str, Any]:
        made = self.uploads[upload]
        sizes = dict.fromkeys(range(first, last + 1), made.part_bytes)
        if made.size is not None:
            starts = range(0, made.size or 1, made.part_bytes)
            sizes = {n: min(made.part_bytes, made.size - s) for n, s in enumerate(starts, 1)}
            sizes = {number: size for number, size in sizes.items() if number >= first}
        elif last_bytes is not None:
            sizes[last] = last_bytes
        url = f"{self.address}/part/{upload}"
        parts = [
            {"url": f"{url}/{number}", "part_number": number, "size": size, "headers": {}}
            for number, size in sizes.items()
        ]
        is_copy = made.source is not None
        return {"object_storage_upload_id": upload, "is_copy": is_copy, "parts": parts}

    def put_part(self, upload: str, number: int, content: bytes) -> str:
        """Its ETag."""
        made = self.uploads[upload]
        if made.source:
            start = (number - 1) * made.part_bytes
            content = self.files[made.source].content[start : start + made.part_bytes]
        made.parts[number] = content
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    def complete(self, upload: str, asked: dict[str, Any]) -> _Answer:
        made = self.uploads.pop(upload)
        content = b"".join(made.parts[part["part_number"]] for part in asked["parts"])
        self.files[made.owner, made.path] = _File(content, _now())
        return 204, None

    def cancel(self, upload: str) -> _Answer:
        self.uploads.pop(upload, None)
        return 204, None

    def present(self, asked: dict[str, Any]) -> _Answer:
        owner, path = asked["owner_name"], asked["file_path"]
        if (owner, path) not in self.files:
            return 404, {"message": "no such file"}
        return 200, self._present_file(owner, path)

    def present_many(self, asked: dict[str, Any]) -> _Answer:
        owner = asked["owner_name"]
        paths = [path for path in asked["file_paths"] if (owner, path) in self.files]
        return 200, {"files": [self._present_file(owner, path) for path in paths]}

    def delete(self, asked: dict[str, Any]) -> _Answer:
        found = self.files.pop((asked["owner_name"], asked["file_path"]), None)
        return (204, None) if found else (404, {"message": "no such file"})

    def delete_many(self, asked: dict[str, Any]) -> _Answer:
        for path in asked["file_paths"]:
            self.files.pop((asked["owner_name"], path), None)
        return 200, {"failed_file_paths": []}

    def _describe(self, owner: str, path: str) -> dict[str, Any]:
        file = self.files.get((owner, path), _File(b"", _now()))
        times = {"created_at": file.time, "updated_at": file.time}
        return {"file_path": path, "size": len(file.content), **times}

    def _present_file(self, owner: str, path: str) -> dict[str, Any]:
        query = urllib.parse.urlencode({"owner": owner, "path": path})
        return {**self._describe(owner, path), "url": f"{self.address}/file?{query}"}


class _Server(ThreadingHTTPServer):
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    """Takes requests apart."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer in one piece
    disable_nagle_algorithm = True
    place: SfsServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        """Until the client goes away."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        parsed = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parsed.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.place.asked.append(f"{method} {self.path}")
        match (method, *parsed.path.strip("/").split("/")):
            case "PUT", "part", upload, number:
                etag = self.place.put_part(upload, int(number), body)
                self._send(200, b"", ETag=etag)
            case "GET", "file":
                self._send_file(self.place.files.get((query["owner"], query["path"])))
            case _, "api", "object_storage", *words:
                if self.headers.get("Authorization") != f"token {_TOKEN}":
                    self._send_json(401, {"message": "no such token"})
                else:
                    self._send_json(*self._ask(method, words, query, json.loads(body or b"{}")))
            case _:
                self._send_json(404, {"message": "no such page"})

    def _ask(
        self, method: str, words: list[str], query: dict[str, str], body: dict[str, Any]
    ) -> _Answer:
        place = self.place
        match (method, *words):
            case ("GET",):
                return place.list_files(query)
            case "POST", "upload":
                return place.start(body)
            case "GET", "upload", upload:
                return place.resume(upload, query)
            case "POST", "upload", upload:
                return place.complete(upload, body)
            case "DELETE", "upload", upload:
                return place.cancel(upload)
            case "POST", "download":
                return place.present(body)
            case "POST", "bulk_download":
                return place.present_many(body)
            case "DELETE", "delete":
                return place.delete(body)
            case "DELETE", "bulk_delete":
                return place.delete_many(body)
        return 404, {"message": "no such call"}

    def _send_file(self, file: _File | None) -> None:
        if file is None:
            self._send(404, b"NoSuchKey")
            return
        found = self.headers.get("Range")
        if not found:
            self._send(200, file.content)
            return
        start, _, end = found.removeprefix("bytes=").partition("-")
        self._send(206, file.content[int(start) : int(end) + 1 if end else None])

    def _send_json(self, status: int, content: Any) -> None:
        self._send(status, b"" if content is None else json.dumps(content).encode())

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _now() -> str:
    return datetime.now(UTC).isoformat()
