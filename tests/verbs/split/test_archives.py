"""Archives of synced folders: where they go, what is in them, and when they are sent."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from umpteen.errors import InputError, SettingsError
from umpteen.formats.saturn_recipe import Recipe
from umpteen.formats.syncs import Sync
from umpteen.store.directory import DirectoryStore
from umpteen.verbs.split.archives import Archive, Archives, check_archives, place_archive

WORK = "home/jovyan/workspace"
Seen = list[tuple[str, int, int]]


@pytest.mark.parametrize(
    ("sync", "dest", "key"),
    [
        (Sync("/home/me/code", None), "/home/me/code", "home/me/code/data.tar.gz"),
        (Sync("/home/me/../you/", None), "/home/you", "home/you/data.tar.gz"),
        (Sync("code", "/a//b/./c/"), "/a/b/c", "a/b/c/data.tar.gz"),
        (Sync("code", "~/code"), "~/code", "code/data.tar.gz"),
        (Sync("code", "/"), "/", "data.tar.gz"),
        (Sync("code", "/X/X"), "/X/X", "X/X/data.tar.gz"),
        (Sync("code", None), f"/{WORK}/code", f"{WORK}/code/data.tar.gz"),
        (Sync("code", "../x"), "/home/jovyan/x", "home/jovyan/x/data.tar.gz"),
    ],
)  # fmt: skip
def test_archive_has_the_place_of_its_folder(
    recipe: Recipe, sync: Sync, dest: str, key: str
) -> None:
    assert place_archive(sync, recipe, "s3://own") == Archive(
        sync.src, dest, key, f"s3://own/{key}", {}
    )


def test_archive_of_a_relative_place_is_below_the_folder_of_the_recipe(
    read: Callable[[str], Recipe],
) -> None:
    recipe = read("spec:\n  working_directory: /work\n")
    assert place_archive(Sync("code", None), recipe, "s3://own").dest == "/work/code"


def test_archives_that_would_replace_one_another_are_refused(recipe: Recipe) -> None:
    base = "s3://own"
    syncs = [("/other", "/elsewhere"), ("/a", "/there"), ("/b", "/there")]
    archives = [place_archive(Sync(*sync), recipe, base) for sync in syncs]
    check_archives(archives[:2], base)
    with pytest.raises(SettingsError, match=r"^/a and /b would both be at /there$") as raised:
        check_archives(archives, base)
    assert raised.value.hint == "give one of them another place: --sync SRC:DEST"


def test_archives_that_no_start_script_can_fetch_are_refused() -> None:
    with pytest.raises(SettingsError, match="a start script cannot fetch from gs://"):
        check_archives([], "gs://bucket")


# --- what is in them ----------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a file, and a link that leads out of it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "code.py").write_text("print()")
    (source / "link").symlink_to("/elsewhere")
    return source


@pytest.fixture
def seen() -> Seen:
    """What is shown while folders are read."""
    return []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectoryStore]:
    """Of the archives."""
    store = DirectoryStore(str(tmp_path / "archives"))
    yield store
    store.close()


def note(*found: object, seen: Seen) -> None:
    seen.append(found)  # type: ignore[arg-type]


def open_archives(folder: Path | str, store: DirectoryStore, seen: Seen) -> Archives:
    return Archives(str(folder), store.address, lambda *found: note(*found, seen=seen))


def place(source: Path) -> Archive:
    return Archive(str(source), "/there", "there/data.tar.gz", "s3://own/there/data.tar.gz")


def list_names(store: DirectoryStore, archive: Archive) -> list[str]:
    content = store.read(archive.key) or b""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        return tar.getnames()


def test_archive_has_the_folder_with_links_as_they_are(
    source: Path, store: DirectoryStore, seen: Seen
) -> None:
    archives, archive = open_archives("/c", store, seen), place(source)
    packed = archives.measure(archive)
    assert (packed.files, packed.size_bytes) == (2, 7)
    assert packed.outward == (("link", "/elsewhere"),)
    assert seen[-1] == (str(source), 2, 7)
    seen.clear()
    sent = archives.send(store, archive, packed)
    assert sent == (archive.source, archive.dest, archive.url, packed, True)
    assert seen[-1] == (str(source), 2, 7)
    assert list_names(store, archive) == ["code.py", "link"]


def test_archive_has_other_files_in_place_of_those_that_are_there(
    source: Path, tmp_path: Path, store: DirectoryStore, seen: Seen
) -> None:
    (tmp_path / "new").write_text("something longer")
    instead = {"code.py": str(tmp_path / "new"), "link": None}
    archives, archive = open_archives("/c", store, seen), place(source)._replace(instead=instead)
    packed = archives.measure(archive)
    assert (packed.files, packed.size_bytes) == (1, 16)
    archives.send(store, archive, packed)
    assert list_names(store, archive) == ["code.py"]


def test_archive_leaves_out_the_chunks_and_what_was_sent(source: Path, seen: Seen) -> None:
    inner = DirectoryStore(str(source / "archives"))
    archives, archive = open_archives(source / "chunks", inner, seen), place(source)
    before = archives.measure(archive).digest
    (source / "chunks").mkdir()
    (source / "chunks" / "0.json").touch()
    sent = archives.send(inner, archive, archives.measure(archive))
    assert sent.packed.digest == before
    assert archives.measure(archive).digest == before
    assert list_names(inner, archive) == ["code.py", "link"]


def test_archive_of_the_chunks_leaves_out_their_recipe_alone(
    source: Path, tmp_path: Path, store: DirectoryStore, seen: Seen
) -> None:
    for name in ("0.json", "recipe.yaml"):
        (source / name).touch()
    link = tmp_path / "link"
    link.symlink_to(source)
    archives = open_archives(link, store, seen)
    archives.send(store, place(source), archives.measure(place(source)))
    assert list_names(store, place(source)) == ["0.json", "code.py", "link"]


def test_archives_elsewhere_leave_out_no_folder_of_that_name(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source)
    (source / "s3:" / "own").mkdir(parents=True)
    (source / "s3:" / "own" / "file").touch()
    archives = Archives("/c", "s3://own", lambda *_: None)
    assert archives.measure(place(source)).files == 3


# --- when they are sent -------------------------------------------------------------------------


def send(archives: Archives, store: DirectoryStore, archive: Archive) -> bool:
    return archives.send(store, archive, archives.measure(archive)).is_new


def test_archive_is_sent_once(source: Path, store: DirectoryStore, seen: Seen) -> None:
    archives, archive = open_archives("/c", store, seen), place(source)
    assert send(archives, store, archive)
    before = os.stat(store.path(archive.key)).st_mtime_ns
    assert not send(archives, store, archive)
    assert os.stat(store.path(archive.key)).st_mtime_ns == before


def test_archive_of_other_content_is_sent(source: Path, store: DirectoryStore, seen: Seen) -> None:
    archives, archive = open_archives("/c", store, seen), place(source)
    send(archives, store, archive)
    (source / "more").touch()
    assert send(archives, store, archive)
    assert "more" in list_names(store, archive)
    assert not send(archives, store, archive)


@pytest.mark.parametrize("content", [b"what another tool has put there since", b"", None])
def test_archive_that_is_not_there_as_it_was_sent_is_sent_again(
    source: Path, store: DirectoryStore, seen: Seen, content: bytes | None
) -> None:
    archives, archive = open_archives("/c", store, seen), place(source)
    send(archives, store, archive)
    if content is None:
        store.delete(archive.key)
    else:
        store.replace(archive.key, content)
    assert send(archives, store, archive)
    assert list_names(store, archive) == ["code.py", "link"]


def test_note_has_the_digest_and_how_the_archive_ends(
    source: Path, store: DirectoryStore, seen: Seen
) -> None:
    archives, archive = open_archives("/c", store, seen), place(source)
    packed = archives.measure(archive)
    archives.send(store, archive, packed)
    content = store.read(archive.key) or b""
    assert store.read(f"{archive.key}.digest") == f"{packed.digest} {content[-8:].hex()}".encode()


def test_archive_that_could_not_be_sent_has_no_note_of_an_earlier_one(
    source: Path, store: DirectoryStore, seen: Seen
) -> None:
    archives, archive = open_archives("/c", store, seen), place(source)
    send(archives, store, archive)
    (source / "code.py").write_text("second")
    packed = archives.measure(archive)
    (source / "code.py").write_text("as it is when it is read")
    with pytest.raises(InputError, match="changed while it was being read"):
        archives.send(store, archive, packed)
    assert store.read(f"{archive.key}.digest") is None
    assert send(archives, store, archive)
