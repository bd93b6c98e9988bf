"""What several processes need is made by one of them."""

import multiprocessing
import os
import time

import pytest

from helpers import once

FORK = multiprocessing.get_context("fork")


def make_slowly(folder):
    folder.mkdir()
    time.sleep(0.3)
    with (folder / "made").open("a") as stream:
        stream.write(f"{os.getpid()}\n")


def test_the_first_process_makes_it_and_the_others_wait(tmp_path):
    def ask(folder, answers):
        once.once(folder, make_slowly)
        answers.put((folder / "made").read_text())

    answers = FORK.Queue()
    processes = [FORK.Process(target=ask, args=(tmp_path / "f", answers)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    (text,) = {answers.get(timeout=60) for _ in processes}
    assert len(text.splitlines()) == 1


def test_what_failed_is_not_tried_again_and_says_why(tmp_path):
    calls = []

    def fail(folder):
        calls.append(folder)
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        once.once(tmp_path / "f", fail)
    with pytest.raises(AssertionError, match="OSError: no room"):
        once.once(tmp_path / "f", fail)
    assert len(calls) == 1
