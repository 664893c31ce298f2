"""A broker and a Redis that are not the kit's: a container beside the scenario's hosts, reached over TLS alone."""

from __future__ import annotations

import subprocess

NAME = "celery-ops-apps-foreign"
IMAGE = "celery-ops-test:trixie"
PASSWORD = "not/a+secret"
ENCODED = "not%2Fa%2Bsecret"
CA = "/etc/ssl/certs/foreign-ca.pem"
"""Where the application's host has it."""
BROKER = f"amqps://abroad:{ENCODED}@{NAME}:5671/abroad"
RESULTS = f"rediss://:{ENCODED}@{NAME}:6380/3?ssl_cert_reqs=required"

SET_UP = f"""
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -q update && apt-get -q install -y --no-install-recommends rabbitmq-server redis-server openssl
mkdir -p /etc/tls && cd /etc/tls
new="openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
$new -subj /CN=CA -keyout ca.key -out ca.pem -addext keyUsage=critical,keyCertSign,cRLSign
$new -subj /CN={NAME} -CA ca.pem -CAkey ca.key -addext subjectAltName=DNS:{NAME} -keyout key.pem -out cert.pem
chmod a+r key.pem
cat >/etc/rabbitmq/rabbitmq.conf <<END
listeners.tcp = none
listeners.ssl.default = 5671
ssl_options.cacertfile = /etc/tls/ca.pem
ssl_options.certfile = /etc/tls/cert.pem
ssl_options.keyfile = /etc/tls/key.pem
ssl_options.verify = verify_none
END
service rabbitmq-server stop >/dev/null 2>&1 || true
rabbitmq-server -detached
timeout 60 sh -c 'until rabbitmqctl -q await_startup; do sleep 1; done'
rabbitmqctl -q add_vhost abroad
rabbitmqctl -q add_user abroad '{PASSWORD}'
rabbitmqctl -q set_permissions -p abroad abroad '.*' '.*' '.*'
service redis-server stop >/dev/null 2>&1 || true
redis-server --daemonize yes --save '' --bind 0.0.0.0 --port 0 --tls-port 6380 --requirepass '{PASSWORD}' \\
  --tls-cert-file cert.pem --tls-key-file key.pem --tls-ca-cert-file ca.pem --tls-auth-clients no
"""


def start(host: str) -> None:
    """Start the container anew, and let a host trust its CA."""
    remove()
    words = ["--name", NAME, "--hostname", NAME, "--network", "celery-ops-apps", IMAGE, "sleep", "infinity"]
    docker("run", "--detach", "--init", *words)
    docker("exec", "-i", NAME, "sh", standard_input=SET_UP)
    ca = docker("exec", NAME, "cat", "/etc/tls/ca.pem")
    docker("exec", "-i", host, "sh", "-c", f"cat >{CA} && chmod 644 {CA}", standard_input=ca)


def remove() -> None:
    """Remove it, if it is there."""
    subprocess.run(["docker", "rm", "--force", "--volumes", NAME], capture_output=True)


def docker(*words: str, standard_input: str = "") -> str:
    """What a docker command prints; AssertionError with all of it where it fails."""
    done = subprocess.run(["docker", *words], input=standard_input, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
