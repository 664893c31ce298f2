"""Which server a web command starts, and whether it takes the socket; each was run under guard and listener."""

import shlex

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.web_servers import problems

WORKS = [
    "gunicorn shop.wsgi --workers 3",
    "gunicorn -c gunicorn.conf.py -p {pidfile} shop.wsgi",
    "gunicorn shop.asgi:app -k uvicorn_worker.UvicornWorker",
    "uvicorn shop:app --fd 3",
    "uvicorn --fd=3 shop:app --workers 2",
    "python -m uvicorn shop:app --fd 3",
    "/usr/bin/env LEVEL=1 uvicorn shop:app --fd 3",
    "daphne --fd 3 shop.asgi:app",
    "daphne -e fd:fileno=3 shop.asgi:app",
    "hypercorn --bind fd://3 shop:app",
    "hypercorn -b fd://3 -p {pidfile} shop:app",
    "uwsgi --http-socket fd://3 --die-on-term --master -p 4 --module shop.wsgi",
    "uwsgi --ini uwsgi.ini",
    "uwsgi uwsgi.yml --http-socket fd://3",
    "python -u server.py",
    "python -W ignore -b server.py -u somebody",
    "bash start.sh -b 1",
    "env",
    "",
]
FAILS = {
    "uvicorn shop:app": "uvicorn shop:app --fd 3",
    "python -m uvicorn shop:app": "python -m uvicorn shop:app --fd 3",
    "uvicorn shop:app --fd 30": "uvicorn shop:app --fd 30 --fd 3",
    "uvicorn shop:app --port 8000": "the same without --port, and with --fd 3",
    "daphne shop.asgi:app": "daphne shop.asgi:app --fd 3",
    "daphne -p 8000 shop.asgi:app": "the same without -p, and with --fd 3",
    "hypercorn shop:app": "hypercorn shop:app --bind fd://3",
    "uwsgi --module shop.wsgi": "uwsgi --module shop.wsgi --http-socket fd://3 --die-on-term",
    "uwsgi --http :8000 --module shop.wsgi": "the same without --http, and with --http-socket fd://3 --die-on-term",
    "uwsgi --http-socket=fd://3 -w shop.wsgi": "uwsgi --http-socket=fd://3 -w shop.wsgi --die-on-term",
    "gunicorn shop.wsgi -b fd://3": "the same without -b",
    "/srv/shop/gunicorn shop.wsgi -D": "the same without -D",
    "python server.py --port 8000": "the same without --port",
    "python -u manage.py runserver": "gunicorn <project>.wsgi",
    "flask run": "gunicorn <module>:<app>",
    "waitress-serve shop:app": "gunicorn <module>:<app>",
    "fastapi run shop.py": "uvicorn <module>:<app> --fd 3",
    "python server.py ${PORT}": "gunicorn <module>:<app>",
}


@pytest.mark.parametrize("line", WORKS)
def test_a_server_that_takes_the_socket_is_let_through(line):
    assert list(problems(shlex.split(line))) == []


@pytest.mark.parametrize("line", FAILS)
def test_a_server_that_does_not_is_told_what_to_write(line):
    [(_, write)] = problems(shlex.split(line))
    assert write.startswith(FAILS[line])
