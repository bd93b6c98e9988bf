"""Start the command with streams that work, and end it without a traceback when they do not."""

import os
import sys

from .errors import refusal

# the error of a program whose reader is gone: it is no fault of the verb
_EXIT_CODE_OF_OUTPUT = 1


def open_missing_streams() -> None:
    """Open what the caller closed of standard input, output and errors.

    Otherwise the next file that is opened would take the place of one, and receive its lines.
    """
    while True:
        number = os.open(os.devnull, os.O_RDWR)
        if number > 2:
            os.close(number)
            return


def run() -> int:
    """Run the command. Returns its exit code; 1 when its output cannot be written."""
    open_missing_streams()
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)
    # a file name that is not UTF-8 is shown with escapes
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        from .cli import main

        code = main(sys.argv[1:])
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # at its end the interpreter would try to write once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_CODE_OF_OUTPUT
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"feedstock: {refusal(error)}", file=sys.stderr)
        return _EXIT_CODE_OF_OUTPUT


if __name__ == "__main__":
    sys.exit(run())
