"""Standard output and error that survive a closed pipe: `run_all.py --list | head`."""

import errno
import os
import sys

# Windows has no signal for a closed pipe, and sometimes raises another error.
READER_GONE = (errno.EPIPE, errno.EINVAL) if os.name == "nt" else (errno.EPIPE,)


class Stream:
    """A text stream that drops its output once the reader is gone.

    The files that a command writes, and its exit code, must not depend on its reader.
    """

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text`; do nothing once the reader is gone."""
        self._or_nowhere(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the buffer; Python also calls this at exit."""
        self._or_nowhere(self._stream.flush)

    def _or_nowhere(self, act, *arguments) -> None:
        try:
            act(*arguments)
        except OSError as error:
            if error.errno not in READER_GONE:
                raise
            # As in Python's documentation of SIGPIPE: the rest of the buffer must go somewhere.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def prepare() -> None:
    """Make sure that printing never ends this process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            # Show '?' instead of failing on consoles that cannot print non-ASCII characters.
            stream.reconfigure(errors="replace")
            setattr(sys, name, Stream(stream))
