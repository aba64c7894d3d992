"""Recipes: what is read of them, and what stays as it was."""

from __future__ import annotations

from typing import Any

import pytest

from umpteen.errors import InputError, SettingsError
from umpteen.formats.documents import Source
from umpteen.formats.json_documents import JsonDocument
from umpteen.formats.saturn_recipe import (
    Download,
    Recipe,
    check_fetchable,
    join_script,
    read_recipe,
    rewrite_recipe,
)
from umpteen.formats.yaml_documents import YamlDocument, parse_yaml

RECIPE = """\
# a recipe é 名 😀
type: job   # kind
spec:
  # first
  start_script: |  # of each machine
    pip install . é

  # then
  command:
  - a
  - b
  # called so
  name: x  # 😀
  scale: 3   # machines
  empty:
  # last
other: 2
"""
REWRITTEN = """\
# a recipe é 名 😀
type: job   # kind
spec:
  # first
  start_script: |  # of each machine
    one
    two

  # then
  command:
  - sc batch 0
  # called so
  name: x  # 😀
  scale: 5   # machines
  empty:
  # last
  instance_type: large
other: 2
"""
CHANGES = {
    "scale": 5,
    "command": ["sc batch 0"],
    "start_script": "one\ntwo\n",
    "instance_type": "large",
}
UNUSUAL = {
    "flow": "{type: job, spec: {name: demo, scale: 3, command: x, start_script: 'a'}}",
    "merge": "base: &b\n  scale: 2\nspec:\n    <<: *b\n    env: [a, b]  # env",
    "comments of values": "spec:\n  command: python x  # old\n  start_script: pip  # up\n",
    "empty": "spec: {}",
    "anchor": "spec:\n  start_script: &s |\n    a\n  command: c\nx: *s\n",
    "end of the file": "spec:\n  scale: 1\n  env:\n    A: 1\n\n    # last\n\n",
    "no line end": "spec:\n  name: a\n  env: {A: [1,\n    2]}",
    "indented": "spec:\n  start_script: |2\n      a\n    b\n\n\n  command: [a, b]\nx: 1",
    "folded": "spec:\n  start_script: >-\n    a\n    b\n  command: 'it''s'\n",
    "quoted key": "spec:\n  'scale': 1\n  \"command\" : a\n",
    "list": "spec:\n  command:\n    - a\n    -\n  scale: 0x3\n",
    "carriage returns": "spec:\r\n  scale: 1\r\n  command: a\r\nx: 1\r\n",
}


def read(text: str) -> Recipe:
    return read_recipe(YamlDocument(Source("recipe.yaml", text.encode()), list_key="-"))


def parse(text: str) -> Any:
    return parse_yaml(Source("", text.encode()))


def test_recipe_rewritten_keeps_order_comments_and_blanks() -> None:
    changed = rewrite_recipe(read(RECIPE), CHANGES)
    assert changed == REWRITTEN.replace("  # last\n  instance_type: large\n", "").replace(
        "  empty:\n", "  empty:\n  instance_type: large\n  # last\n"
    )


def test_recipe_rewritten_twice_is_the_same() -> None:
    once = rewrite_recipe(read(RECIPE), CHANGES)
    assert rewrite_recipe(read(once), CHANGES) == once


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize(
    "script",
    ["a\n", "", "x: {y}\n#z", "  indented\nless\n", "tab\t\nend \n\n\n", "bell\a\n", "é\n"],
)
def test_recipe_in_any_layout_says_what_it_said_but_for_the_changes(name: str, script: str) -> None:
    changes = {**CHANGES, "start_script": script, "command": []}
    changed = parse(rewrite_recipe(read(UNUSUAL[name]), changes))
    before = parse(UNUSUAL[name])
    assert changed["spec"].pop("command") == []
    assert changed["spec"].pop("start_script") == script
    kept = {key: value for key, value in before["spec"].items() if key not in changes}
    assert changed["spec"] == {**kept, "scale": "5", "instance_type": "large"}
    assert {**changed, "spec": 0} == {**before, "spec": 0}


def test_recipe_in_json_becomes_yaml_with_its_types() -> None:
    data = b'{"type": "job", "spec": {"b": 1.5, "a": null, "name": "no", "start_script": "x\\ny"}}'
    recipe = read_recipe(JsonDocument(Source("recipe.json", data)))
    assert rewrite_recipe(recipe, {"command": ["a"], "scale": 2}) == (
        "type: job\nspec:\n  b: 1.5\n  a: null\n  name: 'no'\n  start_script: |-\n    x\n    y\n"
        "  command:\n  - a\n  scale: 2\n"
    )


@pytest.mark.parametrize(
    ("url", "dest", "lines"),
    [
        (
            "/a b/data.tar.gz",
            "/c d",
            ["cp '/a b/data.tar.gz' /tmp/data.tar.gz", "mkdir -p '/c d/'"],
        ),
        ("s3://b/x.tar.gz", "/c/", ["aws s3 cp s3://b/x.tar.gz /tmp/data.tar.gz", "mkdir -p /c/"]),
        ("sfs://o/u/x", "~/c d", ["saturnfs cp sfs://o/u/x /tmp/data.tar.gz", "mkdir -p ~/'c d/'"]),
    ],
)
def test_script_fetches_by_scheme_and_quotes(url: str, dest: str, lines: list[str]) -> None:
    unpacked = lines[1].replace("mkdir -p", "tar -xvzf /tmp/data.tar.gz -C")
    assert join_script("old\n", [Download(url, dest)]).splitlines() == [
        "### BEGIN SATURN_CLIENT GENERATED CODE",
        *lines,
        unpacked,
        "### END SATURN_CLIENT GENERATED CODE",
        "old",
    ]


def test_script_replaces_an_earlier_block_wherever_it_stands() -> None:
    old = "set -e\n" + join_script("pip install .\n", [Download("/a", "/b")])
    script = join_script(old, [Download("/c", "/d")])
    assert script == join_script("set -e\npip install .\n", [Download("/c", "/d")])


def test_script_cannot_fetch_from_elsewhere() -> None:
    with pytest.raises(SettingsError, match="gs://"):
        check_fetchable("gs://bucket/x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nspec: [1]\n", "recipe.yaml, line 2: 'spec' must be a mapping, not a list"),
        ("spec:\n  name: a\n  start_script: [a]", "line 3: 'start_script' must be a text"),
    ],
)
def test_recipe_with_wrong_values_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text).get_text("start_script")
    assert message in str(caught.value)
