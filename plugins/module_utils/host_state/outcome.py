"""What a call of the module host_state has changed, or would change in check mode."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HIDDEN = "(hidden)\n"
AFTER = " (after)"
"""What follows a name in the header of a diff."""


@dataclass
class Outcome:
    """Collects what the steps change. With `check` they change nothing and note the same."""

    check: bool = False
    diff: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    unlike: dict[str, str] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    due: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def note(self, what: str, before: Any, after: Any) -> None:
        """Note a change; `before` and `after` are what a diff shows of it: texts, or dicts of attributes."""
        self.diff.append(
            {"before": before, "after": after, "before_header": f"{what} (before)", "after_header": f"{what}{AFTER}"}
        )

    def changed_path(self, path: str, before: Any, after: Any) -> None:
        """Note a path that was not as it is to be."""
        if path not in self.paths:
            self.paths.append(path)
        self.note(path, before, after)

    def result(self) -> dict[str, Any]:
        """What the module answers."""
        return {
            "changed": bool(self.diff),
            "diff": self.diff,
            "paths": self.paths,
            "packages": self.packages,
            "unlike": self.unlike,
            "started": self.started,
            "unread": self.unread,
            "due": self.due,
        }
