"""Values that have broken configuration files before: each has to arrive as it was written."""

import pytest

VALUES = [
    "plain",
    "",
    "100%",
    "%(ENV_PATH)s",
    "%(program_name)s",
    "%%",
    "a ;b",
    "a ; b",
    ";",
    "a #b",
    "#",
    "it's",
    'say "hi"',
    """both ' and ".""",
    "back\\slash",
    '\\"',
    "two  spaces",
    " edges ",
    "tab\there",
    "$HOME",
    "$(id)",
    "`id`",
    "a,b=c",
    "[section]",
    "key=value",
    "{{ 1 + 1 }}",
    "Zürich – 日本語 🩻",
]

each_value = pytest.mark.parametrize("value", VALUES, ids=repr)
NEWLINES = ["a\nb", "a\n", "\n[program:evil]\ncommand=id", "a\rb"]
each_newline = pytest.mark.parametrize("value", NEWLINES, ids=repr)
