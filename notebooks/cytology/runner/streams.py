"""Standard output and error whose reader may leave: `run_all.py --list | head`."""

import errno
import os
import sys

# Windows has no signal for a closed pipe, and sometimes another error.
READER_GONE = (errno.EPIPE, errno.EINVAL) if os.name == "nt" else (errno.EPIPE,)


class Stream:
    """A stream of text that drops what nobody reads any more.

    What a command writes to files, and its exit code, must not depend on its reader.
    """

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text`; to nowhere once the reader is gone."""
        self._or_nowhere(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered; Python calls this also at its end."""
        self._or_nowhere(self._stream.flush)

    def _or_nowhere(self, act, *arguments) -> None:
        try:
            act(*arguments)
        except OSError as error:
            if error.errno not in READER_GONE:
                raise
            # As Python's documentation of SIGPIPE does: what is still buffered must go somewhere.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def prepare() -> None:
    """Let nothing that this process prints end it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            # Show '?' instead of failing on consoles that cannot print non-ASCII characters.
            stream.reconfigure(errors="replace")
            setattr(sys, name, Stream(stream))
