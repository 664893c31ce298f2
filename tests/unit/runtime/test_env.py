import subprocess
import sys

import pytest
from celery_ops import env
from stand_in import RUNTIME

HOSTILE = {
    "PLAIN": "amqp://petct:s3cret@127.0.0.1:5672/petct",
    "EMPTY": "",
    "SPACES": "  two words ",
    "QUOTES": """it's "so" """,
    "SHELL": "$HOME `id` $(id) a;b & c | d > e # f \\ ~ * ?",
    "PERCENT": "100%% %(here)s",
    "UNICODE": "größe 体 \u2028 \x0b \x85",
    "TAB": "a\tb\r",
    "EQUALS": "a=b=c",
}


def test_round_trip():
    assert env.parse(env.render(HOSTILE)) == HOSTILE


def test_a_shell_reads_the_same(tmp_path):
    path = tmp_path / "env"
    path.write_text(env.render(HOSTILE))
    show = f"import os; print(repr({{k: os.environ[k] for k in {list(HOSTILE)!r}}}))"
    done = subprocess.run(
        ["sh", "-c", 'set -a; . "$0"; exec "$1" -c "$2"', str(path), sys.executable, show],
        capture_output=True,
        text=True,
        check=True,
        env={"LANG": "C.UTF-8", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.stdout.strip() == repr(HOSTILE)


def test_equal_variables_give_equal_bytes():
    assert env.render({"B": "2", "A": "1"}) == env.render({"A": "1", "B": "2"}) == "A=1\nB=2\n"


def test_comments_blank_lines_and_both_quotes():
    assert env.parse("# a comment\n\nA=\"b c\"d'e'\n") == {"A": "b cde"}


@pytest.mark.parametrize(
    "line",
    [
        "A",
        "1A=b",
        "export A=b",
        " A=b",
        "A=b c",
        "A=$HOME",
        'A="$HOME"',
        "A=`id`",
        "A=b;id",
        "A='open",
        "A=b # c",
    ],
)
def test_what_a_shell_would_read_differently_is_refused(line):
    with pytest.raises(env.EnvFileError, match=r"^/etc/petct/env:2: "):
        env.parse(f"OK=1\n{line}\n", "/etc/petct/env")


def test_a_key_set_twice_is_refused():
    with pytest.raises(env.EnvFileError, match="second time"):
        env.parse("A=1\nA=2\n")


def test_errors_do_not_show_values():
    with pytest.raises(env.EnvFileError) as error:
        env.parse("PASSWORD=top secret\n")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("variables", [{"A": "b\nc"}, {"A": "b\0c"}, {"A-B": "c"}, {"": "c"}, {"A\n": "c"}])
def test_render_refuses(variables):
    with pytest.raises(env.EnvFileError):
        env.render(variables)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "celery_ops.env", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=RUNTIME,
    )


def test_command_gets_environment_and_folder(tmp_path):
    path = tmp_path / "env"
    path.write_text(env.render({"GREETING": "a b"}))
    done = run(path, "--chdir", tmp_path, "--", "sh", "-c", 'echo "$GREETING" $PWD')
    assert (done.returncode, done.stdout.strip()) == (0, f"a b {tmp_path}")


def test_command_keeps_its_own_options(tmp_path):
    path = tmp_path / "env"
    path.write_text("")
    done = run(path, "--chdir", tmp_path, "--", "echo", "-A", "demo", "--chdir", "x", "--", "-y")
    assert done.stdout == "-A demo --chdir x -- -y\n"


@pytest.mark.parametrize("command", [["true"], ["/no/such/program"]])
def test_command_names_what_is_missing(tmp_path, command):
    path = tmp_path / "env"
    if command != ["true"]:
        path.write_text("")
    done = run(path, "--", *command)
    assert done.returncode == 78
    assert "No such file" in done.stderr
    assert "Traceback" not in done.stderr
