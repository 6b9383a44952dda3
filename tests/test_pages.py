"""The pages that people read: short where they must be, and every link leads somewhere."""

import re
from functools import cache
from pathlib import Path

import pytest

from cytology.settings import PROJECT_ROOT

PAGES = [
    *PROJECT_ROOT.glob("*.md"),
    *PROJECT_ROOT.glob("docs/*.md"),
    *(PROJECT_ROOT / folder / "README.md" for folder in ("data", "outputs", "benchmarks")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
MOST_LINES, MOST_BYTES = 180, 12_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT_ROOT).as_posix())
def test_every_link_to_a_file_or_heading_of_the_project_works(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if heading:
            assert heading in headings(target), f"{page.name}: {link}"


def test_the_readme_is_short_and_every_page_is_linked() -> None:
    readme = PROJECT_ROOT / "README.md"
    assert len(readme.read_text("utf-8").splitlines()) <= MOST_LINES
    assert readme.stat().st_size <= MOST_BYTES
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(page.read_text("utf-8"))
        if "://" not in link
    }
    alone = [page.name for page in PAGES if page not in linked and page != readme]
    assert not alone, f"no page leads to {alone}"


@cache
def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them from its headings."""
    lines = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}
