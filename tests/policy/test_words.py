"""The words that the kit's texts do without: names, task names, messages, docs and pages."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from kit import ROOT, all_tasks, tracked_files

TEXTS = {"", ".cfg", ".css", ".html", ".ini", ".j2", ".js", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}
# Not written here: licences and lock files.
SKIPPED = re.compile(r"^LICENSE$|requirements\.txt$|\.lock$|^tests/policy/test_words\.py$")


@dataclass(frozen=True)
class Word:
    """A wording, what to write instead, and the files in which it is right."""

    pattern: str
    instead: str
    allowed: str = r"(?!)"

    def found_in(self, path: str, text: str) -> list[str]:
        """Where a text has it, as path:line: words."""
        if re.search(self.allowed, path):
            return []
        hits = re.finditer(self.pattern, text)
        return [f"{path}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]!r} -> {self.instead}" for hit in hits]


# Where old names are refused with the new one, or read from the files of older versions, and what tests that.
HISTORY = (
    r"^CHANGELOG\.md$|^tests/upgrade/|/inventory_rules/(model|variables)\.py$|/bad_variables\.yml$"
    r"|/supervisor/generation\.py$|/layout\.py$|/test_(generation|deployments|release|programs)\.py$"
)
WORDS = [
    # data_folder_in and control_folder are options of a transport of kombu's.
    Word(r"(?i)(?<!data_)(?<!control_)folders?(?![a-z])", "directory"),
    Word(
        r"(?i)(?<!dead.)(?<!dead)(?<!ascii_)(?<!with a )(?<!hold )(?<!lowercase )\bletters?\b(?!.*\bdigits?\b)",
        "message, dead-lettered task",
    ),
    Word(r"(?i)letterbox", "queue"),
    Word(r"\bHave (?=[a-zA-Z])", "an imperative verb of the field"),
    Word(r"(?i)\bbe sure\b", "confirm"),
    Word(r"\bHow it is\b|\bhow (they are|it does)\b", "status, health"),
    Word(r"NOT RIGHT\b|\ball is well\b", "PROBLEMS, OK"),
    Word(
        r"\bPatient\b|\btreat(s|ed|ment)?\b|\bSICK\b|\bWELL\b|\bVerdicts?\b|\bheal(s|ed|ing)?\b",
        "no medical words",
        r"^app/viewer/",
    ),
    Word(r"\bWatch\b|\b(the|a|an|this|its|small|no|every|each) watch\b|\bwatch =", "watchdog"),
    Word(r"\bHopeless\b|\bNotYet\b|\bTrouble\b", "OperatorError, PermanentError, RetryLater"),
    Word(r"\bEvictions?\b|\bcrews?\b|\bstrangers?\b", "termination, processes, foreign lock holder"),
    Word(r"\bone_by_one\b|\bsettle\b", "rolling, min_uptime", HISTORY),
    Word(r"\bprove\b|_prove\b|_prove_", "check, soak, await_ready", HISTORY),
    Word(r"\bfamily(?!:)|_family\b", "program", HISTORY + r"|^runtime/celery_ops/launch/listener\.py$"),
    Word(r"(?i)\bfor so (many|long)\b|\bafter so many\b", "say what ends it, with its number"),
    Word(r"(?i)\bcan(no|'|’)?t carry\b|\bcan carry\b", "meet the requirements"),
    Word(r"\b[Nn]obody watches\b|\bby somebody\b", "the watchdog is not running; manually"),
    Word(r"(?i)\b(balance|keep|kept) the books\b|\bthe books\b|\bbooks (of|that|are)\b", "ledger"),
    Word(r"\b(there and back|(?<!ro)way back)\b", "round trip; rollback"),
    Word(r"\bmust never be\b|\bis no garbage\b|\bdon't die of\b|\bgone for good\b", "say it in the field's terms"),
    Word(r"(?i)\bmend(s|ed|ing)?\b", "fix, repair, correct"),
]
# First words of a task name that are no verb.
NO_VERB = re.compile(
    r"(A|All|An|As|Be|End here|Have|How|It|Its|No|Nothing|Once|So|That|The|These|This|What|Where|Who|Whose)\b"
)


def texts() -> dict[str, str]:
    """Every text of the kit by path."""
    paths = {str(path.relative_to(ROOT)): path for path in tracked_files()}
    return {
        name: path.read_text(errors="replace")
        for name, path in paths.items()
        if path.suffix in TEXTS and not SKIPPED.search(name)
    }


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.instead)
def test_a_text_does_without(word):
    found = [hit for path, text in texts().items() for hit in word.found_in(path, text)]
    assert found == []


def test_the_words_are_found_where_they_are():
    assert Word("folder", "directory").found_in("docs/x.md", "one\na folder") == ["docs/x.md:2: 'folder' -> directory"]
    assert Word("folder", "directory", "^docs/").found_in("docs/x.md", "a folder") == []


def test_task_names_begin_with_a_verb():
    names = {str(task): task.body.get("name", "").rpartition(" | ")[2] for task in all_tasks()}
    assert len(names) > 50
    assert [where for where, name in names.items() if NO_VERB.match(name) or not name[:1].isupper()] == []
