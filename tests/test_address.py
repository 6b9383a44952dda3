"""The address of the project: one place, and one command that changes it everywhere."""

import shutil
import sys

import pytest

from cytology.settings import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT))

from tools.set_repository_address import PLACES, check_published, publish_at, published_at


@pytest.fixture
def fork(tmp_path):
    """A copy of every file that names the address."""
    for place in PLACES:
        for path in PROJECT_ROOT.glob(place):
            copy = tmp_path / path.relative_to(PROJECT_ROOT)
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(path, copy)
    return tmp_path


def texts(root):
    return {path: path.read_text("utf-8") for place in PLACES for path in root.glob(place)}


def test_every_notebook_and_the_readme_use_the_same_address():
    address = published_at()
    for path in [*(PROJECT_ROOT / "notebooks").glob("*.ipynb"), PROJECT_ROOT / "README.md"]:
        text = path.read_text("utf-8")
        assert f"colab.research.google.com/github/{address}/blob/main/notebooks/" in text, path
    for path in (PROJECT_ROOT / "notebooks").glob("*.ipynb"):
        assert f"git clone -q --depth 1 https://github.com/{address} " in path.read_text("utf-8")
        assert f"/blob/main/notebooks/{path.name})" in path.read_text("utf-8")


@pytest.mark.parametrize("start", ["", "https://github.com/"])
@pytest.mark.parametrize("ending", ["", "/", ".git"])
def test_one_command_changes_it_everywhere_and_back(fork, start, ending):
    before, old = texts(fork), published_at(fork)
    changed = publish_at(f"{start}somebody/a.fork-of_it{ending}", fork)
    assert published_at(fork) == "somebody/a.fork-of_it"
    assert len(changed) == len([text for text in before.values() if old in text])
    assert not any(old in text for text in texts(fork).values())
    publish_at(f"https://github.com/{old}", fork)
    assert texts(fork) == before


def test_a_release_needs_its_own_address(fork):
    publish_at("https://github.com/OWNER/breast-cytology-notebooks", fork)
    with pytest.raises(ValueError, match="pyproject.toml, README.md, CITATION.cff, .* OWNER"):
        check_published(fork)
    publish_at("https://github.com/somebody/cytology", fork)
    check_published(fork)
    (fork / "docs" / "new.md").write_text("https://github.com/OWNER/cytology/issues")
    with pytest.raises(ValueError, match="docs/new.md would send"):
        check_published(fork)


def test_a_longer_name_with_the_same_start_is_left_alone(fork):
    readme, old = fork / "README.md", published_at(fork)
    readme.write_text(f"https://github.com/{old}-too and https://github.com/{old}.", "utf-8")
    publish_at("https://github.com/me/mine", fork)
    assert readme.read_text("utf-8") == (
        f"https://github.com/{old}-too and https://github.com/me/mine."
    )


@pytest.mark.parametrize(
    "address", ["mine", "me/mine/too", "https://gitlab.com/me/mine", "../copy", ""]
)
def test_an_address_that_colab_cannot_open_is_refused(fork, address):
    before = texts(fork)
    with pytest.raises(ValueError, match="not the address of a repository on GitHub"):
        publish_at(address, fork)
    assert texts(fork) == before
