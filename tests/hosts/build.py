#!/usr/bin/env python3
"""Makes what the molecule scenarios run on: a Docker engine, Debian base images, a browser.

Run as root on a bare Debian machine: `tests/hosts/build.py [SUITE[=MIRROR]...]`, by default both Debians. Ubuntu's
suites need its keyring, and a mirror where mmdebstrap doesn't know the suite. Installs what is missing, starts dockerd
only if none answers, and builds an image only when its inputs (the packages below, image/, the machine's private CAs)
have changed. Needs nothing but Python.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUITES = ("bookworm", "trixie")
COMPONENTS = {"noble": "main,universe", "resolute": "main,universe"}
"""Where the packages of the kit are, other than in main: Ubuntu 24.04 and 26.04."""
REPOSITORY = "celery-ops-test"
PACKAGES = "python3,systemd,systemd-sysv,dbus,ca-certificates,iproute2,procps,sudo,faketime,openssh-server"
COMMANDS = {"dockerd": "docker.io", "mmdebstrap": "mmdebstrap", "chromium": "chromium", "ssh": "openssh-client"}
OVERLAY = Path(__file__).resolve().parent / "image"
PRIVATE_CAS = Path("/usr/local/share/ca-certificates")
CGROUPS = Path("/sys/fs/cgroup")
DOCKERD_LOG = Path("/var/log/dockerd.log")
DOCKERD_DEADLINE = 60  # seconds


class SetUpError(Exception):
    """What the operator has to do before the test hosts can be made."""


def say(message: str) -> None:
    """Shows progress at once, even when the output goes to a file."""
    print(f"test hosts: {message}", flush=True)


def output(*command: str | Path) -> str:
    """Returns what a command prints, or raises SetUpError with the end of what it said."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr)[-3000:]
        raise SetUpError(f"`{' '.join(map(str, command))}` ended with {done.returncode}:\n{said}")
    return done.stdout


def install_missing() -> None:
    """Installs, through apt, the packages whose command is not there."""
    missing = [package for command, package in COMMANDS.items() if not shutil.which(command)]
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    apt = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3")
    output(*apt, "update")
    output(*apt, "install", "--yes", "--no-install-recommends", *missing)


def docker_answers() -> bool:
    """Tells whether an engine answers, by the same environment variables that molecule obeys."""
    return subprocess.run(("docker", "info"), capture_output=True, check=False).returncode == 0


def remove_stale_pidfile(pidfile: Path, program: str) -> None:
    """Removes a killed daemon's pidfile: dockerd takes any process with that pid for a dockerd."""
    if not pidfile.exists():
        return
    process = Path("/proc", pidfile.read_text().strip() or "none", "comm")
    if not process.exists() or process.read_text().strip() != program:
        say(f"removing the stale {pidfile}")
        pidfile.unlink()


def start_docker() -> None:
    """Starts dockerd where none answers, and waits until it does.

    Under systemd it is a service. Elsewhere it is a background process that outlives us.
    """
    if docker_answers():
        return
    if Path("/run/systemd/system").is_dir():
        say("starting docker.service")
        output("systemctl", "start", "docker")
        return
    if not any(CGROUPS.iterdir()):
        output("mount", "-t", "cgroup2", "cgroup2", CGROUPS)
    remove_stale_pidfile(Path("/var/run/docker.pid"), "dockerd")
    remove_stale_pidfile(Path("/var/run/docker/containerd/containerd.pid"), "containerd")
    say(f"starting dockerd (its log is {DOCKERD_LOG})")
    with DOCKERD_LOG.open("ab") as log:
        daemon = subprocess.Popen(
            ("dockerd",), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
    deadline = time.monotonic() + DOCKERD_DEADLINE
    while not docker_answers():
        if daemon.poll() is not None or time.monotonic() > deadline:
            end = "\n".join(DOCKERD_LOG.read_text(errors="replace").splitlines()[-15:])
            raise SetUpError(
                f"dockerd does not answer. The end of {DOCKERD_LOG}:\n{end}\n"
                "Start a Docker engine yourself (dockerd), or point DOCKER_HOST at one, then run this again."
            )
        time.sleep(0.2)


def private_cas() -> list[Path]:
    """Returns the certificates this machine trusts beyond Debian's own; test hosts have to trust them too."""
    return sorted(PRIVATE_CAS.glob("*.crt"))


def fingerprint() -> str:
    """Returns a hash of everything an image is made of, except Debian itself."""
    digest = hashlib.sha256(PACKAGES.encode())
    for path in [*sorted(p for p in OVERLAY.rglob("*") if p.is_file()), *private_cas()]:
        digest.update(f"{path.name} {path.stat().st_mode:o}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def bootstrap(suite: str, mirror: str, tar: Path, hooks: list[str]) -> list[str | Path]:
    """Returns the command that makes a suite's root file system."""
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={PACKAGES}",
        *([f"--components={COMPONENTS[suite]}"] if suite in COMPONENTS else []),
        *(f"--customize-hook={hook}" for hook in hooks),
        suite,
        tar,
        *([mirror] if mirror else []),
    ]


def build_image(wanted: str, inputs: str) -> None:
    """Makes the image `celery-ops-test:<suite>` unless the one there has the same inputs."""
    suite, _, mirror = wanted.partition("=")
    image = f"{REPOSITORY}:{suite}"
    ask = ("docker", "image", "inspect", "--format", '{{ .Id }} {{ index .Config.Labels "inputs" }}', image)
    old, _, old_inputs = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.partition(" ")
    if old_inputs.strip() == inputs:
        say(f"{image} is up to date")
        return
    say(f"building {image} (a minute or two)")
    started = time.monotonic()
    # sshd runs only where a scenario says so (image/usr/local/sbin/test-host-ssh).
    hooks = [f'cp --recursive "{OVERLAY}"/. "$1"', 'chroot "$1" systemctl --quiet disable ssh.service']
    if private_cas():
        hooks += [f'cp {PRIVATE_CAS}/*.crt "$1"{PRIVATE_CAS}/', 'chroot "$1" update-ca-certificates']
    with tempfile.TemporaryDirectory(prefix="celery-ops-test-") as directory:
        tar = Path(directory, f"{suite}.tar")
        output(*bootstrap(suite, mirror, tar, hooks))
        output("docker", "import", "--change", f"LABEL inputs={inputs}", tar, image)
    if old:
        subprocess.run(("docker", "image", "rm", old), capture_output=True, check=False)
    say(f"{image} built in {time.monotonic() - started:.0f} s")


def main() -> int:
    """Sets everything up; returns the exit code."""
    try:
        if os.geteuid() != 0:
            raise SetUpError("Only root can make the test hosts (apt, mmdebstrap, dockerd). Type: sudo make test")
        install_missing()
        start_docker()
        inputs = fingerprint()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda suite: build_image(suite, inputs), sys.argv[1:] or SUITES))
    except SetUpError as error:
        print(f"test hosts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
