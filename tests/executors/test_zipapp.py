"""What travels as one zip file, and what of it is compiled before."""

from __future__ import annotations

import zipfile
import zipimport
from pathlib import Path

import pytest

from umpteen.executors.zipapp import build_compiled_zipapp, build_zipapp


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    path = tmp_path / "runner.zip"
    path.write_bytes(build_compiled_zipapp().content)
    return path


def test_what_is_compiled_is_what_is_imported(compiled: Path) -> None:
    found = zipimport.zipimporter(str(compiled))
    below = zipimport.zipimporter(f"{compiled}/umpteen/runner")
    assert found.is_package("umpteen")
    assert below.get_filename("main").endswith("/umpteen/runner/main.pyc")
    assert below.get_code("main") is not None


def test_compiled_zip_has_the_source_too(compiled: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.zip"
    plain.write_bytes(build_zipapp().content)
    with zipfile.ZipFile(plain) as one, zipfile.ZipFile(compiled) as other:
        sources = {name: one.read(name) for name in one.namelist()}
        rest = {name: other.read(name) for name in other.namelist()}
    assert sources.items() <= rest.items()
    assert rest.keys() - sources.keys() == {
        f"{name}c" for name in sources if name != "umpteen/__init__.py"
    }


def test_zip_is_named_by_its_content_and_the_python_that_compiled_it() -> None:
    assert build_compiled_zipapp().digest != build_zipapp().digest
    build_compiled_zipapp.cache_clear()
    one = build_compiled_zipapp()
    build_compiled_zipapp.cache_clear()
    assert build_compiled_zipapp().digest == one.digest
