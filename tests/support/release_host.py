"""A directory that is a host on which releases are built, and an application of a few lines."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.action import release_source
from ansible_collections.celery_ops.kit.plugins.module_utils.build_command import ReleaseError
from ansible_collections.celery_ops.kit.plugins.modules import release
from ansible_collections.celery_ops.kit.plugins.modules.release import Releases

ROOT = Path(__file__).resolve().parents[2]

TOKEN = "s3cr3t-t0ken"
# The Celery of these tests, installed in a moment.
CELERY = {"celery_here.pth": f"{sysconfig.get_path('purelib')}\n", "shoplib/big.py": "BIG = 1\n"}
APP = "from celery import Celery\n\napp = Celery('shop')\n"


def make_wheel(directory: Path, name: str, version: str, files: dict[str, str], scripts: str = "") -> None:
    """A wheel with these files and a console script of its own name, or these."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": scripts or f"[console_scripts]\n{name} = {name}:main\n",
    }
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        record = "".join(f"{path},,{len(text)}\n" for path, text in files.items())
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


def quick_python(directory: Path) -> str:
    """This Python, but that its `-m venv` copies a virtualenv: to make one takes seconds, and dozens are made."""
    bare, python = directory / "bare", directory / "python3"
    subprocess.run([sys.executable, "-m", "venv", bare], check=True)
    python.write_text(
        f"""#!/bin/sh
[ "$1 $2" = "-m venv" ] || exec {sys.executable} "$@"
cp -al {bare} "$3" && grep -rlI {bare} "$3/bin" "$3/pyvenv.cfg" | xargs sed -i "s|{bare}|$3|g"
"""
    )
    python.chmod(0o755)
    return str(python)


class Host:
    """A directory that is a host, and the control node's side of it."""

    python = sys.executable

    def __init__(self, directory: Path) -> None:
        self.directory, self.runtime = directory, ROOT / "runtime"
        self.releases = Releases("shop", directory / "srv/shop")
        self.source, self.wheels = directory / "source", directory / "wheels"
        for path in (self.source, self.wheels, self.releases.directory, directory / "etc", directory / "conf.d"):
            path.mkdir(parents=True)
        make_wheel(self.wheels, "celery", metadata.version("celery"), CELERY)
        (self.source / "requirements.txt").write_text("celery\n")
        (self.source / "shop.py").write_text(APP)
        (self.source / "data.txt").write_text("data\n")
        self.environment = directory / "etc/env"
        self.environment.write_text("")
        self.packed = self.pack()

    def pack(self, **changes) -> dict[str, str]:
        return release_source.prepare(
            {
                "source": str(self.source), "version": "HEAD", "requirements": "requirements.txt", "exclude": [],
                "runtime": str(self.runtime), "cache": str(self.directory / "cache"),
                "shared_directory": str(self.releases.base / "shared"), **changes,
            }
        )  # fmt: skip

    def options(self, archive: bool = True, **changes) -> dict:
        given = {
            "app": "shop", "base": str(self.releases.base), "id": self.packed["id"], "python": self.python,
            "celery_module": "shop", "environment_file": str(self.environment), "user": getpass.getuser(),
            "archive": str(shutil.copy(self.packed["archive"], self.directory / "sent")) if archive else None,
            "install_environment": json.dumps({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}),
            "listener": self.packed["listener"],
        }  # fmt: skip
        defaults = {name: option.get("default") for name, option in release.ARGUMENTS.items()}
        return {**defaults, **given, **changes}

    def build(self, check_mode: bool = False, **changes) -> dict:
        return release.act(self.options(**changes), check_mode)

    def fail(self, **changes) -> ReleaseError:
        with pytest.raises(ReleaseError) as caught:
            self.build(**changes)
        return caught.value

    @property
    def release(self) -> Path:
        return self.releases.directory / self.packed["id"]

    @property
    def venv(self) -> Path:
        return (self.release / "venv").resolve()

    @property
    def status(self) -> str:
        return self.releases.note(self.packed["id"])["status"]


def like(built: Host, directory: Path) -> Host:
    """Another host, which has the virtualenvs already."""
    host = Host(directory)
    shutil.copytree(built.releases.base / "venvs", host.releases.base / "venvs", symlinks=True)
    return host
