import os
import pwd
import shlex
import shutil
import subprocess
import sys
import venv

import pytest
from celery_ops.launch import env
from support.stage import RUNTIME

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


def file_of(variables):
    """An environment file as the control node writes it (tests/templates/test_environment_file.py)."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def test_round_trip():
    assert env.parse(file_of(HOSTILE)) == HOSTILE


def test_a_shell_reads_the_same(tmp_path):
    path = tmp_path / "env"
    path.write_text(file_of(HOSTILE))
    show = f"import os; print(repr({{k: os.environ[k] for k in {list(HOSTILE)!r}}}))"
    done = subprocess.run(
        ["sh", "-c", 'set -a; . "$0"; exec "$1" -c "$2"', str(path), sys.executable, show],
        capture_output=True,
        text=True,
        check=True,
        env={"LANG": "C.UTF-8", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.stdout.strip() == repr(HOSTILE)


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


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "celery_ops.cli.env", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=RUNTIME,
    )


def test_command_gets_environment_and_directory(tmp_path):
    path = tmp_path / "env"
    path.write_text(file_of({"GREETING": "a b"}))
    done = run(path, "--chdir", tmp_path, "--", "sh", "-c", 'echo "$GREETING" $PWD')
    assert (done.returncode, done.stdout.strip()) == (0, f"a b {tmp_path}")


def test_command_keeps_its_own_options(tmp_path):
    path = tmp_path / "env"
    path.write_text("")
    done = run(path, "--chdir", tmp_path, "--", "echo", "-A", "demo", "--chdir", "x", "--", "-y")
    assert done.stdout == "-A demo --chdir x -- -y\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("true", "No such file"),
        ("/no/such/program", "no program /no/such/program; type: ls -l /no/such/program"),
        ("no-such-program", f"no program no-such-program in the virtualenv {sys.prefix}, nor in "),
    ],
)
def test_command_names_what_is_missing(tmp_path, command, said):
    path = tmp_path / "env"
    if command != "true":
        path.write_text("")
    done = run(path, "--", command)
    assert done.returncode == 78
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def release(tmp_path):
    """A release with a link to a virtualenv, which has a program, and a script in the source that uses it."""
    venv.create(tmp_path / "venvs/one", with_pip=False)
    release = tmp_path / "releases/1"
    release.mkdir(parents=True)
    (release / "venv").symlink_to("../../venvs/one")
    shutil.copytree(RUNTIME, release / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    start = f"#!{release}/venv/bin/python\nimport sys\nsys.path[0] = '{release}/runtime'\n"
    for directory, name, text in (
        ("bin", "celery-ops-env", start + "from celery_ops.cli.env import main\nmain()\n"),
        ("bin", "celery-ops-guard", start + "from celery_ops.cli.guard import main\nmain()\n"),
        ("venv/bin", "own", '#!/bin/sh\necho "own $VIRTUAL_ENV"\n'),
        ("app", "script.sh", 'own && python -c "import sys; print(sys.prefix)"\n'),
        (".", "env", "PATH=/opt/tools:/usr/bin:/bin\nPYTHONPATH=src\n"),
    ):
        (release / directory).mkdir(exist_ok=True)
        (release / directory / name).write_text(text)
        (release / directory / name).chmod(0o755)
    return release


def in_release(release, command, module):
    """Run a command line in a release by celery-ops-env or -guard; return the lines that it prints."""
    guard = ("--app", "demo", "--program", "demo-x", "--pidfile", release / "run/x.pid", "--env-file")
    done = subprocess.run(
        [
            *(release / f"bin/celery-ops-{module}", *(guard if module == "guard" else ()), release / "env"),
            *("--chdir", release / "app", "--", *shlex.split(command)),
        ],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": "/an/older/release/runtime"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("module", ["env", "guard"])
@pytest.mark.parametrize(
    "command",
    ["own", "bash script.sh", "env own", "sh -c own", 'python -c \'import os; os.execlp("own", "own")\''],
    ids=["own", "script", "env", "sh", "python"],
)
def test_the_virtualenv_comes_first_in_path_and_the_rest_of_it_after(release, command, module):
    prefix = str(release / "venv")
    assert in_release(release, command, module) == [f"own {prefix}", *([prefix] if "script" in command else [])]


@pytest.mark.parametrize("module", ["env", "guard"])
def test_the_application_imports_the_runtime_of_its_release_and_keeps_its_own_path(release, module):
    show = "import os, celery_ops; print(celery_ops.__file__, os.environ['PYTHONPATH'], sep='\\n')"
    assert in_release(release, f'python -c "{show}"', module) == [
        f"{release}/runtime/celery_ops/__init__.py",
        f"{release}/runtime:src",
    ]


def test_the_kits_commands_are_found_by_their_names(release):
    [usage, *_] = in_release(release, "celery-ops-guard --help", "env")
    assert usage.startswith("usage: celery-ops-guard")


def test_a_command_of_the_application_has_its_users_home_and_not_roots(tmp_path):
    (tmp_path / "env").write_text("MINE=1\n")
    words = [
        sys.executable,
        "-m",
        "celery_ops.cli.env",
        tmp_path / "env",
        "--",
        "sh",
        "-c",
        "echo $HOME $USER $LOGNAME",
    ]
    left = {**os.environ, "HOME": "/somebody", "USER": "somebody", "LOGNAME": "somebody"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=RUNTIME, env=left, check=True)
    me = pwd.getpwuid(os.geteuid())
    assert done.stdout.split() == [me.pw_dir, me.pw_name, me.pw_name]
