"""The project's public address: `pyproject.toml` has it, everything else is written from there.

    python tools/set_repository_address.py                    # shows it
    python tools/set_repository_address.py you/your-fork      # changes it everywhere
    python tools/set_repository_address.py --check            # fails while it is not set

Badges and the setup cell of each notebook must contain it, since they are read before any code of
the project is there.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(r'^Repository = "https://github\.com/([\w.-]+/[\w.-]+)"$', re.MULTILINE)
PLACES = (
    *("pyproject.toml", "README.md", "CONTRIBUTING.md", "CITATION.cff", "notebooks/*.ipynb"),
    "docs/*.md",
)
NOBODY = re.compile(r"github(?:\.com)?/OWNER/")


def published_at(root: Path = ROOT) -> str:
    """Owner and name, e.g. `you/your-fork`, of the project at `root`."""
    (address,) = LINE.findall((root / "pyproject.toml").read_text("utf-8"))
    return address


def publish_at(address: str, root: Path = ROOT) -> list[Path]:
    """Write `OWNER/NAME` on GitHub into every file that names it; returns the files that changed.

    `https://github.com/` in front is allowed. Raises `ValueError` if it is not a repository on
    GitHub: Colab opens no others.
    """
    new = re.fullmatch(r"(?:https://github\.com/)?([\w-]+/[\w.-]+?)(?:\.git)?/?", address)
    if new is None:
        raise ValueError(
            f"{address!r} is not the address of a repository on GitHub, which Colab needs: write "
            "OWNER/NAME."
        )
    before = re.compile(rf"(github(?:\.com)?/){re.escape(published_at(root))}(?![\w.-]*[\w-])")
    changed = []
    for path in (path for place in PLACES for path in sorted(root.glob(place))):
        text = path.read_text("utf-8")
        if (now := before.sub(rf"\g<1>{new[1]}", text)) != text:
            path.write_text(now, encoding="utf-8")
            changed.append(path)
    return changed


def check_published(root: Path = ROOT) -> None:
    """`ValueError` if a file still names OWNER, whose account anybody may take.

    Readers clone and run the code at that address.
    """
    texts = {path: path.read_text("utf-8") for place in PLACES for path in sorted(root.glob(place))}
    found = [path.relative_to(root).as_posix() for path in texts if NOBODY.search(texts[path])]
    if found:
        raise ValueError(
            f"The project has no address yet: {', '.join(found)} would send readers to the account "
            "OWNER, which is not ours. Run `python tools/set_repository_address.py OWNER/NAME` "
            "with the true one before a release."
        )


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    try:
        if arguments == ["--check"]:
            check_published()
        elif arguments:
            for path in publish_at(arguments[0]):
                print("written:", path.relative_to(ROOT).as_posix())
    except ValueError as refusal:
        print(refusal, file=sys.stderr)
        return 2
    print(f"https://github.com/{published_at()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
