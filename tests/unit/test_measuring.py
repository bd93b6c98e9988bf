"""The verbs that measure: what they refuse before they begin, and errors of what they run."""

import asyncio
import subprocess
import sys

import pytest

from helpers import small
from numpy_feedstock import cli, options, variant
from numpy_feedstock.channels import channel
from numpy_feedstock.errors import FeedstockError
from numpy_feedstock.measuring import figures, released, repro
from numpy_feedstock.verbs import benchmark, compare_tests

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def output(tmp_path):
    """An output channel with a tested package of each flavour for the running Python."""
    for wanted in variant.select(["2.3.5"], [PYTHON], None, channel.this_platform()):
        small.put(wanted, tmp_path)
    return tmp_path / "output"


def refused(capsys, *args):
    """What the command says when it refuses its arguments."""
    try:
        code = cli.main(list(map(str, args)))
    except SystemExit as left:
        code = left.code
    assert code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


# also what Python takes for a number
NO_NUMBERS = [
    "",
    " ",
    "-1",
    "0",
    "+5",
    " 5",
    "5 ",
    "1_0",
    "\u0661",
    "0x5",
    "5.",
    "nan",
    "inf",
    "1e400",
]
NUMBERS = [
    *((verb, "--trials", 2, 1_000_000) for verb in ("hang-matrix", "scan-wheels")),
    *((verb, "--timeout", 1, options.LONGEST_TIMEOUT) for verb in ("hang-matrix", "scan-wheels")),
    *((verb, "--jobs", 1, 1024) for verb in ("build", "test")),
    ("hang-matrix", "--threads", 1, 1024),
    ("benchmark", "--rounds", 1, 10_000),
]


@pytest.mark.parametrize(("verb", "option", "least", "most"), NUMBERS)
def test_a_number_that_is_none_or_out_of_its_range_is_refused_at_once(
    verb, option, least, most, capsys
):
    for text in (*NO_NUMBERS, str(least - 1), str(most + 1), str(10**9), "9" * 5000):
        said = refused(capsys, verb, f"{option}={text}")
        assert f"argument {option}: " in said and f" from {least} to {most} " in said, text
    if option != "--timeout":
        assert f"argument {option}: " in refused(capsys, verb, option, "5.5")


@pytest.mark.parametrize(("verb", "option", "least", "most"), NUMBERS)
def test_both_ends_of_a_range_are_taken(verb, option, least, most):
    for number in (least, most):
        args = cli.parser().parse_args([verb, option, str(number)])
        value = getattr(args, option.removeprefix("--"))
        assert value in (number, [number])


def test_a_timeout_may_have_a_fraction():
    args = cli.parser().parse_args(["scan-wheels", "--timeout", "2.5"])
    assert args.timeout == 2.5


def test_the_longest_timeout_is_the_repros_own():
    for timeout, code in ((options.LONGEST_TIMEOUT, 0), (options.LONGEST_TIMEOUT + 1, 1)):
        check = f"import repro; repro.parse(['--timeout', '{timeout}'])"
        done = subprocess.run([sys.executable, "-c", check], cwd=repro.FOLDER, capture_output=True)
        assert done.returncode == code, done.stderr


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("")])
def test_a_root_that_is_none_is_refused_by_a_dry_run(make, capsys, output, tmp_path):
    root = tmp_path / "root"
    make(root)
    args = ("hang-matrix", "--dry-run", "--output", output, "--root", root)
    assert f"not the root directory of a Linux system: {root}" in refused(capsys, *args)


def test_a_benchmark_has_one_flavour(capsys, output):
    for flavours in (["all"], ["mkl", "openblas"]):
        words = [word for flavour in flavours for word in ("--blas", flavour)]
        said = refused(capsys, "benchmark", "--output", output, *words)
        assert f"one --blas is compared at a time, found {', '.join(flavours)}" in said


def test_a_release_without_packages_is_refused_before_its_wheel_is_downloaded(
    capsys, output, monkeypatch
):
    monkeypatch.setattr(released, "unpack_release", lambda release: pytest.fail("downloaded"))
    assert "2.2.6" in released.known()
    said = refused(capsys, "benchmark", "--numpy", "2.2.6", "--output", output)
    assert "unknown numpy release: 2.2.6" in said and "2.3.5" in said


@pytest.mark.parametrize("verb", ["hang-matrix", "compare-tests", "benchmark", "scan-wheels"])
def test_a_page_that_cannot_hold_the_result_is_found_before_the_work(
    verb, capsys, output, tmp_path, monkeypatch
):
    monkeypatch.setattr(figures, "PAGES", (tmp_path / "gone.md",))
    monkeypatch.setattr(compare_tests, "check_results", lambda path: None)
    monkeypatch.setattr(benchmark, "find_wheel", lambda release: tmp_path)
    args = [verb, "--record"]
    if verb == "hang-matrix":
        args += [verb]
    if verb != "scan-wheels":
        args += ["--output", output]
    assert f"cannot be pasted into {tmp_path / 'gone.md'}" in refused(capsys, *args)


def python(folder, script):
    """The path of a program that stands for the Python of a package."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo why >&2; exit 1", "why"),
        ("exit 3", "exit code 3"),
        ("echo no JSON", "printed no JSON"),
        ("printf '\\377'", "printed no JSON"),
        (None, "No such file or directory"),
    ],
)
def test_a_python_that_cannot_be_timed_is_explained(script, reason, tmp_path):
    program = python(tmp_path, script) if script else tmp_path / "python"
    with pytest.raises(FeedstockError, match="the package cannot be timed") as error:
        benchmark.run(program, ["-c", ""], None)
    assert reason in str(error.value)
    with pytest.raises(FeedstockError, match="the wheel cannot be timed"):
        benchmark.run(program, ["-c", ""], tmp_path)


@pytest.mark.parametrize("text", ["[1]", "{}", '{"add": 0}', '{"add": "x"}', '{"add": -1.0}'])
def test_times_that_are_none_are_not_compared(text, tmp_path):
    program = python(tmp_path, f"echo '{text}'")
    with pytest.raises(FeedstockError, match="the package cannot be timed") as error:
        benchmark.compare(program, tmp_path, 1, print)
    assert f"found:    {text.replace(chr(34), chr(39))}" in str(error.value)


def test_a_repro_that_cannot_be_started_is_explained(tmp_path):
    with pytest.raises(FeedstockError, match="No such file or directory"):
        asyncio.run(repro.run([tmp_path / "python"], [], {}))
