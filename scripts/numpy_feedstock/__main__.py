"""Start the command with streams that work, and end it without a traceback when they do not."""

import contextlib
import os
import sys
import tempfile


def open_missing_streams() -> None:
    """Open what the caller closed of standard input, output and errors.

    Otherwise the next file that is opened would take the place of one, and receive its lines.
    """
    while True:
        number = os.open(os.devnull, os.O_RDWR)
        if number > 2:
            os.close(number)
            return


def use_one_temporary_folder() -> None:
    """Give other programs and native code the folder for temporary files that Python takes.

    They take TMPDIR as it is. Python takes another folder when nothing can be written there.
    """
    if os.environ.get("TMPDIR"):
        # a verb that needs a folder says that there is none
        with contextlib.suppress(OSError):
            os.environ["TMPDIR"] = tempfile.gettempdir()


def run() -> int:
    """Run the command. Returns its exit code; 1 when its output cannot be written."""
    open_missing_streams()
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)
    # a file name that is not UTF-8 is shown with escapes
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    use_one_temporary_folder()
    from .cli import main

    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        # main told why; at its end the interpreter would try to write once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


if __name__ == "__main__":
    sys.exit(run())
