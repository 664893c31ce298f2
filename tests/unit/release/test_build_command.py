"""What is said of a command of the build that failed, and what is masked in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import build_command, release_build
from ansible_collections.celery_ops.kit.plugins.module_utils.build_command import ReleaseError, masked
from support.release_host import TOKEN


@pytest.mark.parametrize(
    "said",
    [
        "decouple.UndefinedValueError: SHOP_KEY not found. Declare it as envvar or define a default value.",
        "django.core.exceptions.ImproperlyConfigured: Set the SHOP_KEY environment variable",
        "ImproperlyConfigured: Requested settings, but settings are not configured. You must either define the "
        "environment variable SHOP_KEY or call settings.configure() before accessing settings.",
        "celery.exceptions.ImproperlyConfigured: The environment variable 'SHOP_KEY' is not set, and as such the",
        'environs.exceptions.EnvError: Environment variable "SHOP_KEY" not set',
        "KeyError: \"Config 'SHOP_KEY' is missing, and has no default.\"",
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings\nshop_key\n  Field required "
        "[type=missing, input_value={}, input_type=dict]\n    For further information visit https://errors.pydantic.dev",
        "pydantic.error_wrappers.ValidationError: 1 validation error for Settings\nshop_key\n  field required (type=v)",
    ],
)
def test_an_environment_variable_that_a_library_for_settings_misses_is_named(said):
    [told] = build_command.known_causes(f"Traceback\n{said}\n")
    assert "celery_app_secrets: {SHOP_KEY: ...}" in told


def test_a_body_that_pydantic_refuses_is_no_missing_variable():
    said = "ValidationError: 1 validation error for Order\nprice\n  Field required [type=missing, input_value={}]\n"
    assert list(build_command.known_causes(said)) == []


def test_a_clock_by_which_no_certificate_is_valid_is_named():
    said = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate is not yet valid (_ssl.c:1006)"
    [told] = build_command.known_causes(said)
    assert "The clock of this host says 2" in told and "timedatectl set-ntp true" in told


def test_another_key_that_is_missing_is_none():
    assert list(build_command.known_causes("  File \"shop.py\", line 2\n    {}['x']\nKeyError: 'x'\n")) == []


def test_only_what_may_be_a_secret_is_masked():
    values = [f"https://ci:{TOKEN}@index.example/simple", "/etc/ssl/certs.pem", "5", f"{TOKEN}-2", "https://index/2"]
    text = f"https://ci:{TOKEN}@index.example/simple /etc/ssl/certs.pem 5 {TOKEN}-2 https://index/2 {TOKEN}"
    assert (
        masked(text, values)
        == "https://********@index.example/simple /etc/ssl/certs.pem 5 ******** https://index/2 ********"
    )


@pytest.mark.parametrize("address", ["https://dl.example/{}/acme/simple/", "https://index.example/simple?token={}"])
def test_a_token_in_the_path_of_an_index_is_masked(address):
    token = f"{TOKEN}-0123456789"
    said = f"Looking in indexes: https://main.example/simple, {address.format(token)}"
    values = [f"https://main.example/simple {address.format(token)}"]
    assert masked(said, values) == f"Looking in indexes: https://main.example/simple, {address.format('********')}"


def test_no_login_in_an_address_is_shown_wherever_it_comes_from():
    text = f"x @ https://{TOKEN}@h/x.git redis://:{TOKEN}@h/1 'db+psycopg://me:{TOKEN}@h/y' git+ssh://git@h/z"
    said = "x @ https://********@h/x.git redis://:********@h/1 'db+psycopg://me:********@h/y' git+ssh://git@h/z"
    assert masked(text, []) == said


def test_a_full_disk_is_named_with_what_to_do(tmp_path):
    error = release_build.of_host(OSError(28, "No space left on device", "/srv/shop/x"), Path("/srv/shop"))
    assert "/srv/shop/x: No space left on device. Make room, then run this again: df -h /srv/shop" in str(error)
    assert not error.release_fault


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "x.c:1:10: fatal error: libpq-fe.h: No such file or directory",
            "celery_app_packages: [build-essential, libpq-dev]",
        ),
        (
            "error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory",
            "celery_app_packages: [build-essential, python3-dev]",
        ),
        ("ERROR: Cannot find command 'git' - do you have it installed", "Write: celery_app_packages: [git]"),
        ("PermissionError: [Errno 13] Permission denied: '/srv/shop/releases/1/app/x'", "A release is read-only."),
        ("PermissionError: [Errno 13] Permission denied: 'shop.log'", "A release is read-only."),
        ("sqlite3.OperationalError: unable to open database file", "celery_app_shared"),
        (
            "LookupError: setuptools-scm was unable to detect version for /srv/shop/releases/1/app.",
            'celery_app_install_environment: {SETUPTOOLS_SCM_PRETEND_VERSION: "1.0"}',
        ),
        ("ModuleNotFoundError: No module named 'pkg_resources'", "Write: setuptools<81 (into"),
        ("OSError: [Errno 98] Address already in use", "opens a port when it is imported"),
        (
            "ERROR: Package 'shop' requires a different Python: 3.11.2 not in '>=3.12'",
            "Write: celery_app_python: ",
        ),
        (
            "RuntimeError: Unable to detect version control system. Checked: Git.",
            'celery_app_install_environment: {POETRY_DYNAMIC_VERSIONING_BYPASS: "1.0"}',
        ),
        ("You need to install the ephem library to use solar schedules.", "Write: celery[solar] (into"),
    ],
)
def test_what_is_known_to_be_behind_a_failure_is_said(said, words, tmp_path):
    with pytest.raises(ReleaseError) as error:
        build_command.run(["sh", "-c", f'echo "{said}"; exit 1'], "Installing", "", {}, 5, of_release=True)
    assert words in str(error.value)
    assert error.value.release_fault is ("celery_app_packages: [" not in words), "the host lacks them"


@pytest.mark.parametrize(("end", "words"), [("exit 3", "exited with 3"), ("kill -ILL $$", "was ended by signal 4")])
def test_a_command_that_fails_without_a_word_has_its_status_shown(end, words):
    with pytest.raises(ReleaseError, match=f"It printed nothing, and {words}"):
        build_command.run(["sh", "-c", end], "Importing shop", "", {}, 5, of_release=True)


def test_what_is_not_known_is_not_guessed():
    assert list(build_command.known_causes("PermissionError: [Errno 13] Permission denied: '/etc/shadow'")) == []
    assert list(build_command.known_causes("ERROR: No matching distribution found for celery==9")) == []


def test_the_reason_is_shown_however_much_follows_it():
    said = [
        "Collecting a", "ERROR: Cannot install a and b because these package versions have conflicting dependencies.",
        "The conflict is caused by:", "    a 1.0 depends on kombu<5.4", "    b 1.0 depends on kombu>=5.5", "",
    ]  # fmt: skip
    shown = build_command.reason("\n".join([*said, *(f"line {number}" for number in range(100))]))
    for line in said[1:5]:
        assert line in shown
    assert "line 99" in shown and "line 60" not in shown
