"""Numbers and lists as words."""


def counted(number: int, one: str, several: str) -> str:
    """`1 image is` or `1,234 images are`."""
    return f"{number:,} {one if number == 1 else several}"


def shortened(name: str, most: int = 40) -> str:
    """A name for a figure: its begin and an ellipsis, where it is longer than `most` letters."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def some(words: list[str], most: int = 3) -> str:
    """The first words of a list, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
