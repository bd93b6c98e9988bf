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
    (text,) = {answers.get(timeout=300) for _ in processes}
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("raised", "others"),
    [
        (OSError("no room"), AssertionError),
        (pytest.fail.Exception("no room"), AssertionError),
        (pytest.skip.Exception("no room"), pytest.skip.Exception),
    ],
)
def test_what_failed_is_not_tried_again_and_says_why(tmp_path, raised, others):
    calls = []

    def fail(folder):
        calls.append(folder)
        raise raised

    with pytest.raises(type(raised)) as first:
        once.once(tmp_path / "f", fail)
    assert first.value is raised
    for _ in range(2):
        with pytest.raises(others, match="no room"):
            once.once(tmp_path / "f", fail)
    assert len(calls) == 1


def test_what_was_interrupted_is_made_by_the_next_process(tmp_path):
    def interrupt(folder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once.once(tmp_path / "f", interrupt)
    assert once.once(tmp_path / "f", make_slowly) == tmp_path / "f"
