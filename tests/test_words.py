"""Private words stay out of everything that people read."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READ = (
    *("*.md", "docs/*.md", "data/*.md", "outputs/*.md", "benchmarks/*.md", "notebooks/*.ipynb"),
    *("run_all.py", "benchmarks/**/*.py", "notebooks/cytology/**/*.py", "tools/*.py"),
    "tests/**/*.py",
    "notebooks/cytology/report/*.jinja",
)
# Regular expressions, in which a blank may be a new line, and what to write instead.
BETTER = {
    r"hangs? on": "depends on",
    r"(is|are|was|were|be|been) told(?! apart| to\b)": "is reported",
    r"anew": "again",
    r"aloud": "report, warn",
    r"begun": "started",
    r"mend(s|ed|ing)?": "fix, repair",
    r"gave out": "ran out",
    r"speaks? (for|of)": "means, describes",
    r"whose each": "whose patient is which",
    r"of one'?s own": "its own",
    r"beside itself": "alone",
    r"(?<!here\s)is (?-i:none)": "is not one, there is none",
    r"as asked for": "as requested",
    r"(can|cannot|could|to) be had": "available",
    r"deserves? belief": "can be trusted",
    r"shows? the machinery": "check the software",
    r"what (it|they|each|that) gave": "its results",
    r"goes on from": "continues with",
    r"look(s|ing)? on": "watch",
    r"(an?|one) (row|line|file|folder|figure|sentence|image|prediction|entry|number) an? \w+":
        "one row per network",
    r"(?<!here\s)is no (YAML|CSV|JSON|file|list|table|number|text|archive|literal|readable)":
        "is not a",
}  # fmt: skip
WORDS = {
    re.compile(rf"\b(?:{word})\b".replace(" ", r"(?:[^\S\n]*\n)?[^\S\n]*\b"), re.IGNORECASE): better
    for word, better in BETTER.items()
}

CODE = re.compile(r"`[^`\n]*`")
TEMPLATE = re.compile(r"\{\{[^}\n]*\}\}|\{%[^%\n]*%\}")  # within a line


def passages(path: Path) -> Iterator[tuple[str, str]]:
    """What a person reads in a file: (where it begins, text)."""
    if path.suffix == ".py":
        yield from in_python(path)
    elif path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for number, cell in enumerate(cells, 1):
            if cell["cell_type"] == "markdown":
                yield f"cell {number}", "".join(cell["source"])
    else:
        fenced = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
        text = TEMPLATE.sub("", path.read_text(encoding="utf-8"))
        yield "1", fenced.sub(lambda code: "\n" * code[0].count("\n"), text)


def in_python(path: Path) -> Iterator[tuple[str, str]]:
    """Names of tests, comments, docstrings and messages; a text without a space is no prose."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield str(node.lineno), node.name.replace("_", " ")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield str(node.lineno), node.value
    # Only comments remain, each in its line, so one that goes on in the next line is one text.
    yield "1", re.sub(r"(?m)^(?:(?!# ).)*(?:# ?(.*))?$", r"\1", source)


def private_words(path: Path) -> list[str]:
    """A line for each private word in a file: where it is, and a better one."""
    found = []
    for where, text in passages(path):
        text = CODE.sub(lambda code: " " * len(code[0]), text)
        for word, better in WORDS.items():
            for match in word.finditer(text):
                line = where
                if where.isdigit():
                    line = int(where) + text.count("\n", 0, match.start())
                said = " ".join(match[0].split())
                found.append(f"{path.relative_to(ROOT)}:{line}: “{said}”: better “{better}”")
    return found


def test_the_text_of_the_project_is_plain_english():
    paths = {path for pattern in READ for path in ROOT.glob(pattern)}
    paths.discard(Path(__file__))  # it lists the words
    assert len(paths) > 100
    found = [private_words(path) for path in sorted(paths)]
    assert not (wrong := sum(found, [])), "\n".join(["", *wrong])


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.py", '"""One.\n\nIt hangs\non it.\n"""\nanew = "mended"\n', [3]),
        (
            "a.py",
            'x = 1  # said aloud\n# A table is\n# told.\nraise E(f"{x} is no list")\n',
            [1, 2, 4],
        ),
        ("a.py", "def test_it_is_told_aloud():\n    told = 1\n", [1, 1]),
        ("a.md", "There is no file.\n```\nanew\n```\nA row a network.\n", [5]),
        ("a.md", "Two are told apart, `mended` is a column.\n", []),
    ],
)
def test_private_words_are_found_in_prose_only(tmp_path, monkeypatch, name, text, lines):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = private_words(tmp_path / name)
    assert sorted(int(each.split(":")[1]) for each in found) == lines


def test_only_the_prose_of_a_notebook_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    cells = [("code", "# anew"), ("markdown", "Begun anew.")]
    content = {"cells": [{"cell_type": kind, "source": [text]} for kind, text in cells]}
    (tmp_path / "a.ipynb").write_text(json.dumps(content), encoding="utf-8")
    found = private_words(tmp_path / "a.ipynb")
    assert len(found) == 2 and all(each.startswith("a.ipynb:cell 2: ") for each in found)
