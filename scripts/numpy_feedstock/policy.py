"""The policy: what policy.yaml says about packages, and the limits for reading them."""

import contextlib
import functools
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from .errors import FeedstockError

FILE = Path(__file__).with_name("policy.yaml")


class TooSlow(FeedstockError):
    """Reading a package took longer than the policy allows."""


@dataclass(frozen=True)
class Limits:
    """What reading a package may take.

    bytes : of its unpacked members together
    members : files and links
    depth : folders above a file, and levels of a YAML file
    text_bytes : of a JSON file, or of a Python source
    yaml_bytes : of a YAML file
    seconds : for reading one package, and for each of its checks
    """

    bytes: int
    members: int
    depth: int
    text_bytes: int
    yaml_bytes: int
    seconds: int


@functools.cache
def policy() -> dict[str, Any]:
    """Return what policy.yaml says."""
    import yaml

    content = yaml.safe_load(FILE.read_text())
    assert isinstance(content, dict)
    return content


@functools.cache
def limits() -> Limits:
    """Return the limits for reading a package."""
    return Limits(**policy()["limits"])


@contextlib.contextmanager
def time_limit(what: str) -> Iterator[None]:
    """Raise TooSlow when the block takes longer than the policy allows.

    what : the work, such as "reading numpy-2.3.5-....conda"

    The clock is a signal, which only the main thread can receive: in another thread nothing
    is limited. A block inside another one has its own time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seconds = limits().seconds

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise TooSlow(f"{what} took too long", expected=f"at most {seconds} seconds (policy.yaml)")

    before = signal.signal(signal.SIGALRM, stop)
    left = signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(left)
        signal.signal(signal.SIGALRM, before)
