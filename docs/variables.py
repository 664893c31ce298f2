#!/usr/bin/env python3
"""Write docs/variables.md and the roles' READMEs from the roles' argument specs: `docs/variables.py [--check]`.

Examples come from docs/examples.yml. In a README everything above the marker is written by hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
MARKER = "<!-- Below: written by docs/variables.py from meta/argument_specs.yml and docs/examples.yml. -->\n"
HEAD = """# Variables

Written by `docs/variables.py` from the roles' `meta/argument_specs.yml`. Set what you need in your
inventory's `group_vars/all/`; everything has a default.
"""


def load(path: Path) -> Any:
    """What a YAML file holds."""
    return yaml.safe_load(path.read_text())


def spec_of(role: Path) -> dict[str, Any]:
    """The role's entry points."""
    return load(role / "meta/argument_specs.yml")["argument_specs"]


def examples() -> dict[str, Any]:
    """By variable, a value to show where the default says little."""
    return load(ROOT / "docs/examples.yml")


def is_computed(value: Any) -> bool:
    """Whether a default is a template, which tells a reader nothing."""
    return isinstance(value, str) and "{{" in value


class Dumper(yaml.SafeDumper):
    """Indents lists, as yamllint wants it."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Begin a level."""
        super().increase_indent(flow, False)


def called(role: Path) -> set[str]:
    """Return the task files of a role that playbooks, or other roles, call by `tasks_from`."""
    call = re.compile(rf"name: celery_ops\.kit\.{role.name}\n +tasks_from: (\w+)")
    files = [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]
    return {name for file in files for name in call.findall(file.read_text())}


def entry_points(role: Path) -> dict[str, str]:
    """What each entry point does, by its name: from its spec, or the first sentence of the comment in its task file."""
    described = {name: entry["short_description"] for name, entry in spec_of(role).items()}
    for name in sorted(called(role) - described.keys()):
        text = (role / f"tasks/{name}.yml").read_text().removeprefix("---\n")
        comment = re.match(r"(?:# .*\n)*", text)[0].removeprefix("# ").replace("\n# ", " ")
        described[name] = comment.strip().partition(". ")[0].rstrip(".")
    return described


def block(name: str, value: Any) -> str:
    """A variable with its value, as one writes it."""
    text = yaml.dump({name: value}, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    return f"```yaml\n{text}```\n"


def keys(options: dict[str, Any]) -> str:
    """A line for each key of a dictionary."""
    lines = []
    for name, option in options.items():
        needed = (
            ", required"
            if option.get("required")
            else f", default `{option['default']}`"
            if "default" in option
            else ""
        )
        lines.append(f"- `{name}` ({option['type']}{needed}): {option['description']}\n")
    return "\n" + "".join(lines) if lines else ""


def section(name: str, option: dict[str, Any], example: Any) -> str:
    """A variable: heading, what it is for, type and default, an example."""
    kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
    choices = f", one of {', '.join(choice or 'empty' for choice in option['choices'])}" if "choices" in option else ""
    default = option.get("default")
    about = re.sub(r"<([\w ]+)>", r"\\<\1>", option["description"])  # else a browser takes it for HTML
    text = f"### `{name}`\n\n{about}\n{keys(option.get('options', {}))}\nType: {kind}{choices}. Default:"
    if example is None and not is_computed(default):
        return f"{text}\n\n{block(name, default)}"
    text += " computed." if is_computed(default) else f" `{default!r}`."
    return f"{text}\n" if example is None else f"{text} Example:\n\n{block(name, example)}"


def sections(role: Path) -> str:
    """All of a role's variables."""
    shown = examples()
    options = spec_of(role)["main"].get("options", {})
    return "\n".join(section(name, option, shown.get(name)) for name, option in options.items())


def role_page(role: Path) -> str:
    """A role's README: what was written by hand, its entry points, its variables."""
    spec, page = spec_of(role), role / "README.md"
    by_hand, marker, _ = page.read_text().partition(MARKER) if page.exists() else ("", "", "")
    if not marker:
        by_hand = f"# {role.name}\n\n{spec['main']['short_description']}.\n\n"
    entries = "".join(f"- `{name}` – {text}\n" for name, text in entry_points(role).items())
    return f"{by_hand}{MARKER}\n## Entry points (`tasks_from`)\n\n{entries}\n## Variables\n\n{sections(role)}"


def pages() -> dict[Path, str]:
    """Every generated page and what it holds."""
    roles = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
    return {
        ROOT / "docs/variables.md": HEAD + "".join(f"\n## {role.name}\n\n{sections(role)}" for role in roles),
        **{role / "README.md": role_page(role) for role in roles},
    }


def main() -> int:
    """Write the pages; with --check only say which are not current."""
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(("not current: " if "--check" in sys.argv else "written: ") + str(path.relative_to(ROOT)))
        if "--check" not in sys.argv:
            path.write_text(pages()[path])
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
