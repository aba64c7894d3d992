"""Templates: what is substituted, how it is quoted, and what is left alone."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umpteen.errors import InputError
from umpteen.formats.placeholders import Template, TextTemplate, refuse_placeholders

SHELLS = [shell for shell in ("sh", "bash", "dash", "busybox") if shutil.which(shell)]
POSITIONS = [
    "printf %s {x}",
    "printf %s '{x}'",
    'printf %s "{x}"',
    'r=$(printf %s {x}; echo .); printf %s "${r%.}"',
    'printf %s "$(printf %s {x}; echo .)" | sed "\\$ s/.\\$//"',
    'printf %s "$(printf %s "{x}"; echo .)" | sed "\\$ s/.\\$//"',
    "a=1; printf %s \"$(printf %s '{x}'; echo .)\" | sed '$ s/.$//'",
    "sh -c 'printf %s \"$1\"' sh {x}",
    'a=1; printf "%s" "${a:+}{x}"',
    'a=; printf %s "$a{x}"',
    "a=; printf %s $a{x}",
    "printf %s \\\n {x} # a comment's quote",
    "cat <<E >/dev/null\nit's \"\nE\nprintf %s {x}",
    "cat <<'E' >/dev/null; printf %s {x}\n$(\nE\n",
    "if true; then printf %s {x}; fi",
    "(printf %s {x})",
    "x() { printf %s {x}; }; x",
    "echo `echo a` >/dev/null; printf %s {x}",
    'echo $((1 + (2))) >/dev/null; printf %s "{x}"',
    "echo '#' \\# a#b >/dev/null; printf %s {x}",
]
TEXT = st.text(
    st.one_of(
        st.sampled_from("'\"\\$`!{}()<>|&;#~*?[]=%^ \t\nab0-,.@"),
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
    )
)


def run_shell(shell: str, command: str) -> str:
    words = ["busybox", "sh"] if shell == "busybox" else [shell]
    done = subprocess.run(
        [*words, "-c", command], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.decode()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("command", POSITIONS)
@given(TEXT)
@settings(max_examples=25, deadline=None)
def test_template_any_text_reaches_the_shell_unchanged(
    shell: str, command: str, value: str
) -> None:
    # sed adds the newline of a last line that had none, in some seds.
    filled = Template(command, ["x"]).fill({"x": value})
    assert isinstance(filled, str)
    assert run_shell(shell, filled).removesuffix("\n") == value.removesuffix("\n")


@pytest.mark.parametrize("value", ["FOO=bar", "if", "2", "~", "", "a b", "-n", "#", "!", "{a,b}"])
def test_template_word_that_means_something_is_taken_as_it_is(value: str) -> None:
    template = Template("f() { printf '<%s>' \"$@\"; }; f {x}>/dev/stdout", ["x"])
    assert run_shell("sh", str(template.fill({"x": value}))) == f"<{value}>"


def test_template_plain_value_stays_bare() -> None:
    template = Template("python a.py --lr {lr} --out=out/{lr}.txt", ["lr"])
    assert template.fill({"lr": "0.10"}) == "python a.py --lr 0.10 --out=out/0.10.txt"


@pytest.mark.parametrize(
    "command",
    [
        "echo ${HOME} ${x}",
        "awk '{print $1}' f",
        "find . -exec ls {} \\;",
        "echo {a,b} {1..3}",
        "echo a # {x} and {typo}",
        "echo \"{typo}\" '{typo}' \\{typo}",
        "f() { echo; }; f",
        "echo `echo {typo}`",
        "cat <<E\n{typo}\nE",
        "echo ${a:-{typo}}",
    ],
)
def test_template_other_braces_are_left_alone(command: str) -> None:
    assert Template(command, ["x"]).fill({"x": "5"}) == command


def test_template_without_values_is_left_alone() -> None:
    assert Template("echo {x} {", []).fill({}) == "echo {x} {"


@pytest.mark.parametrize(
    "command", ["echo {sed}", "echo $(echo {sed})", 'echo "$(echo {sed})"', "echo {sed:raw}"]
)
def test_template_unknown_placeholder_names_the_nearest(command: str) -> None:
    with pytest.raises(InputError, match=r"unknown placeholder \{sed\}") as caught:
        Template(command, ["lr", "seed"])
    assert "did you mean 'seed'?" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("cat <<E\n{x}\nE", "a here-document"),
        ("cat <<-'E' | sort\n\ta {x}\n\tE", "a here-document"),
        ("echo $(cat <<E\n{x}\nE\n)", "a here-document"),
        ("echo `echo {x}`", "backticks"),
        ('echo "`echo {x}`"', "backticks"),
        ("echo ${a:-{x}}", "${…}"),
        ("echo \"${a:-'{x}'}\"", "${…}"),
        ("echo $'{x}'", "$'…'"),
        ("echo $(case a in a) echo {x};; esac)", "case"),
    ],
)
def test_template_where_nothing_can_be_quoted_is_refused(command: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        Template(command, ["x"])
    assert where in caught.value.message
    assert "{x:raw}" in str(caught.value.hint)


def test_template_raw_is_put_in_anywhere_as_it_is() -> None:
    command = "a {x:raw} '{x:raw}' \"{x:raw}\" `{x:raw}` <<E\n{x:raw}\nE\n"
    expected = "a $(b) '$(b)' \"$(b)\" `$(b)` <<E\n$(b)\nE\n"
    assert Template(command, ["x"]).fill({"x": "$(b)"}) == expected


def test_template_arithmetic_takes_numbers_only() -> None:
    template = Template("echo $((8000 + {x} * (2)))", ["x"])
    assert run_shell("sh", str(template.fill({"x": "7"}))) == "8014\n"
    with pytest.raises(InputError, match="arithmetic"):
        template.fill({"x": "a[$(touch /tmp/no)]"})


def test_template_list_is_filled_word_by_word() -> None:
    template = Template(["echo", "{x} {x:raw}", "$(", "{}", "{print}"], ["x"])
    assert template.fill({"x": "a 'b"}) == ["echo", "a 'b a 'b", "$(", "{}", "{print}"]


def test_template_list_misspelt_placeholder_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown placeholder \{sed\}"):
        Template(["echo", "{sed}"], ["seed"])


def test_template_percent_signs_stay() -> None:
    assert Template("date +%s%% {x}", ["x"]).fill({"x": "50%"}) == "date +%s%% 50%"


def test_text_template_name_encodes_values() -> None:
    template = TextTemplate("train-{lr}-{file}", ["lr", "file"], for_name=True)
    assert template.fill({"lr": "0.1", "file": "a/b"}) == "train-0.1-a%2Fb"


def test_text_template_name_with_unknown_placeholder_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown placeholder \{sed\}"):
        TextTemplate("train-{sed}", ["seed"], for_name=True)


def test_text_template_other_text_keeps_unknown_braces() -> None:
    assert TextTemplate("{a} ${x} {x}", ["x"]).fill({"x": "1"}) == "{a} ${x} 1"


def test_text_template_misspelt_placeholder_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown placeholder \{sed\}"):
        TextTemplate("data/{sed}", ["seed"])


@pytest.mark.parametrize(
    "command", ["echo", "awk '{x}' f", "echo ${x} {a,b} {} {1}", "echo '{x}'\"a\"'{y}'"]
)
def test_placeholders_of_the_command_itself_are_left_alone(command: str) -> None:
    refuse_placeholders(command)


@pytest.mark.parametrize("command", ["echo {x}", 'echo "{x}"', "echo '{y}' {x:raw}", "a${y}{x}"])
def test_placeholders_without_values_are_refused(command: str) -> None:
    with pytest.raises(InputError) as caught:
        refuse_placeholders(command)
    assert caught.value.message == "the command has {x}, and 'x' has no values"
    assert "x=1..5" in str(caught.value.hint)
