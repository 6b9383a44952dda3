"""Where this project is published: `pyproject.toml` says it, everything else is written from there.

    python -m cytology.address                                      # shows it
    python -m cytology.address https://github.com/you/your-fork     # changes it everywhere
    python -m cytology.address --check                              # fails while it is nobody's

Badges and the setup cell of each notebook must name it, since they are read before any code of the
project is there.
"""

import re
import sys
from pathlib import Path

from cytology.files import written_whole
from cytology.runner import streams
from cytology.settings import PROJECT_ROOT, InputError
from cytology.wording import some

LINE = re.compile(r'^Repository = "https://github\.com/([\w.-]+/[\w.-]+)"$', re.MULTILINE)
PLACES = ("pyproject.toml", "README.md", "CONTRIBUTING.md", "CITATION.cff", "notebooks/*.ipynb")
PLACES += ("docs/*.md",)
NOBODY = re.compile(r"github(?:\.com)?/OWNER/")


def published_at(root: Path = PROJECT_ROOT) -> str:
    """Owner and name, like `you/your-fork`, of the project at `root`."""
    return LINE.search((root / "pyproject.toml").read_text("utf-8"))[1]


def publish_at(address: str, root: Path = PROJECT_ROOT) -> list[Path]:
    """Write a GitHub address into every file that names it; returns the files that changed.

    Raises `InputError` if it is not the address of a repository on GitHub: Colab opens no other.
    """
    new = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", address)
    if new is None:
        raise InputError(
            f"{address!r} is not the address of a repository on GitHub, which Colab needs: give it "
            "as https://github.com/OWNER/NAME."
        )
    before = re.compile(rf"(github(?:\.com)?/){re.escape(published_at(root))}(?![\w.-]*[\w-])")
    changed = []
    for path in (path for place in PLACES for path in sorted(root.glob(place))):
        text = path.read_text("utf-8")
        if (now := before.sub(rf"\g<1>{new[1]}", text)) != text:
            with written_whole(path) as temporary:
                temporary.write_text(now, encoding="utf-8")
            changed.append(path)
    return changed


def check_published(root: Path = PROJECT_ROOT) -> None:
    """`InputError` if a file still names OWNER, whose account anybody may take.

    Readers clone and run what lies at that address.
    """
    texts = {path: path.read_text("utf-8") for place in PLACES for path in sorted(root.glob(place))}
    found = [path.relative_to(root).as_posix() for path in texts if NOBODY.search(texts[path])]
    if found:
        raise InputError(
            f"The project has no address yet: {some(found)} would send readers to the account "
            "OWNER, which is not ours. Run `python -m cytology.address` with the true address "
            "before a release."
        )


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    try:
        if arguments == ["--check"]:
            check_published()
        elif arguments:
            for path in publish_at(arguments[0]):
                print("written:", path.relative_to(PROJECT_ROOT).as_posix())
    except InputError as refusal:
        print(refusal, file=sys.stderr)
        return 2
    print(f"https://github.com/{published_at()}")
    return 0


if __name__ == "__main__":
    streams.prepare()
    sys.exit(main(sys.argv[1:]))
