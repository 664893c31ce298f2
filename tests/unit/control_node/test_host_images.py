"""The builder of test hosts: the suites of its command line, from a mirror that stands there too."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[3] / "tests/hosts/build.py"
spec = importlib.util.spec_from_file_location("build_hosts", FILE)
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["bookworm", "trixie"]),
        (["noble"], ["noble --components=main,universe"]),
        (
            ["resolute=http://mirror.example/ubuntu"],
            ["resolute --components=main,universe http://mirror.example/ubuntu"],
        ),
    ],
    ids=["by default", "ubuntu", "a mirror"],
)
def test_the_suites_of_the_command_line_are_built(arguments, expected, monkeypatch):
    built = []

    def output(*words):
        if words[0] == "mmdebstrap":
            suite = next(word for word in words if word in (*build.SUITES, *build.COMPONENTS))
            built.append(
                " ".join([suite, *(word for word in map(str, words[3:]) if word.startswith(("http", "--comp")))])
            )
        return ""

    monkeypatch.setattr(build, "output", output)
    for step in ("install_missing", "start_docker", "docker_answers"):
        monkeypatch.setattr(build, step, lambda: None)
    monkeypatch.setattr(build, "REPOSITORY", "celery-ops-no-such-image")
    monkeypatch.setattr(build.sys, "argv", ["build.py", *arguments])
    monkeypatch.setattr(build.os, "geteuid", lambda: 0)
    assert build.main() == 0
    assert sorted(built) == expected
