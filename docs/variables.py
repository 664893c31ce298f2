#!/usr/bin/env python3
"""Write docs/variables.md and the roles' READMEs from the roles' argument specs: `docs/variables.py [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Variables

Written by `docs/variables.py` from the roles' `meta/argument_specs.yml`. Set what you need in your
inventory's `group_vars/all/`; everything has a default.
"""


def spec_of(role: Path) -> dict[str, Any]:
    """The role's entry points."""
    return yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]


def rows(options: dict[str, Any]) -> str:
    """One paragraph a variable: name, type, default, what it is for."""
    parts = []
    for name, option in options.items():
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        choices = f", one of {', '.join(option['choices'])}" if "choices" in option else ""
        default = yaml.safe_dump(option["default"], default_flow_style=True, width=10**6).removesuffix("...\n").strip()
        parts.append(f"**`{name}`** ({kind}{choices}) – {option['description']}\nDefault: `{default}`\n")
    return "\n".join(parts)


def role_page(role: Path) -> str:
    """A role's README: what it does, its entry points, its variables."""
    spec = spec_of(role)
    entries = "".join(f"- `{name}` – {entry['short_description']}\n" for name, entry in spec.items())
    title = f"# {role.name}\n\n{spec['main']['short_description']}.\n\n"
    return (
        f"{title}## Entry points (`tasks_from`)\n\n{entries}\n## Variables\n\n{rows(spec['main'].get('options', {}))}"
    )


def pages() -> dict[Path, str]:
    """Every generated page and what it holds."""
    roles = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
    sections = [f"\n## {role.name}\n\n{rows(spec_of(role)['main'].get('options', {}))}" for role in roles]
    return {
        ROOT / "docs/variables.md": HEAD + "".join(sections),
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
