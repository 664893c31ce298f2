"""Rules for the command of the web program: which server it starts, and whether that takes the socket it is handed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

FILES_OF_OPTIONS = (".ini", ".yml", ".yaml", ".json", ".xml")
TAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "gunicorn": ((), ""),  # from LISTEN_FDS, by itself
    "uvicorn": ((r"--fd[= ]3\b",), "--fd 3"),
    "daphne": ((r"--fd[= ]3\b", r"(-e|--endpoint)[= ]?fd:fileno=3\b"), "--fd 3"),
    "hypercorn": ((r"(-b|--bind)[= ]?fd://3\b",), "--bind fd://3"),
    # Its own file of options may hold all of this.
    "uwsgi": (
        (r"--http-socket[= ]fd://3\b", rf"\S+({'|'.join(map(re.escape, FILES_OF_OPTIONS))})(?=\s|$)"),
        "--http-socket fd://3 --die-on-term",
    ),
}
"""By server: what among its options makes it accept from file descriptor 3, and what to write."""
RELOADS = {"uwsgi": "--die-on-term"}
"""Servers that take the signal to stop for one to load their code anew, and the option with which they stop."""
OPENS_A_PORT = {
    ("flask", "run"): "gunicorn <module>:<app>",
    ("manage.py", "runserver"): "gunicorn <project>.wsgi, or uvicorn <project>.asgi:application --fd 3",
    ("django-admin", "runserver"): "gunicorn <project>.wsgi, or uvicorn <project>.asgi:application --fd 3",
    ("fastapi", "run"): "uvicorn <module>:<app> --fd 3",
    ("fastapi", "dev"): "uvicorn <module>:<app> --fd 3",
    ("waitress-serve", ""): "gunicorn <module>:<app>",
}
"""Servers that open a port of their own, and what to write instead."""

IN_FRONT = "Supervisor needs its programs in the foreground"
BOUND = "use celery_web_bind, whose socket is handed over"
USER = "it runs as celery_app_name"
TAKEN = {
    **dict.fromkeys(("--daemon", "--daemonize"), IN_FRONT),
    **dict.fromkeys(("--bind", "--host", "--port", "--uds", "--http", "--http-socket"), BOUND),
    **dict.fromkeys(("--user", "--group", "--uid", "--gid"), USER),
}
TAKEN_BY_SERVERS = {"-D": IN_FRONT, "-b": BOUND, "-p": BOUND, "-u": USER, "-g": USER}
"""Short options, which mean something else to a program of the application's own."""
MEANS_ELSE = {"gunicorn": {"-p"}, "hypercorn": {"-p"}, "uwsgi": {"-D", "-b", "-p", "-u", "-g"}}
"""Short options of TAKEN_BY_SERVERS that are others there, such as a pidfile ({pidfile} stands for it)."""


def server(words: list[str]) -> tuple[str, list[str]]:
    """Return the server that a command line starts, by its name, and its options; none of a shell or of code."""
    words = list(words)
    while words and (Path(words[0]).name == "env" or re.fullmatch(r"\w+=.*", words[0])):
        words.pop(0)
    name = Path(words.pop(0)).name if words else ""
    if not re.fullmatch(r"python[\d.]*", name):
        return ("", []) if name in ("bash", "sh", "dash") else (name, words)
    while words and words[0].startswith("-") and words[0] not in ("-m", "-c"):
        del words[: 2 if words[0] in ("-W", "-X") else 1]
    if not words or words[0] == "-c":
        return "", []
    start = 1 if words[0] == "-m" else 0
    return Path("".join(words[start : start + 1])).name, words[start + 1 :]


def problems(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the words of a web command, and what to write instead of them."""
    name, options = server(words)
    given, line = " ".join(options), " ".join(words)
    for (program, verb), better in OPENS_A_PORT.items():
        if name == program and (not verb or verb in options[:1]):
            yield (
                f"{' '.join([name, verb]).strip()} opens a port of its own and takes no socket that is handed over.",
                better,
            )
            return
    if re.search(r"\$\{?PORT\b", line):
        yield (
            "no shell runs it, and there is no PORT: it has to accept from file descriptor 3.",
            "gunicorn <module>:<app>",
        )
        return
    patterns, write = TAKES.get(name, ((), ""))
    found = next((match for pattern in patterns if (match := re.search(rf"(?:^|\s)({pattern})", given))), None)
    rest = given.replace(found[1], "") if found else given
    for word in rest.split():
        option = re.match(r"--[\w-]+|-[A-Za-z]|", word)[0]
        short = TAKEN_BY_SERVERS if name in TAKES and option not in MEANS_ELSE.get(name, ()) else {}
        if why := (TAKEN | short).get(option):
            yield f"{word}: {why}.", f"the same without {word}" + (f", and with {write}" if write and not found else "")
            return
    stops = RELOADS.get(name)
    if found and stops and stops not in options and not any(word.endswith(FILES_OF_OPTIONS) for word in options):
        yield f"{name} takes the signal to stop for one to load its code anew.", f"{line} {stops}"
    if write and not found:
        yield f"{name} accepts from the socket that it is handed with {write}.", f"{line} {write}"
