#!/usr/bin/env python3
"""Solve what docs/solving.md has tables of, and print them; --write puts them into the page.

build/venv/bin/python tests/solving/table_of_solves.py [--write]    # about a minute
"""

import argparse
import collections
import pathlib
import re
import sys
import tempfile

import tabulate

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from helpers import conda_forge, solves  # noqa: E402  after the paths

PAGE = ROOT / "docs" / "solving.md"
BLOCK = re.compile(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->", re.DOTALL)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        days = [
            solves.make_channels(pathlib.Path(folder, date), date) for date in conda_forge.DATES
        ]
        found = tables(days)
    if args.write:
        PAGE.write_text(filled(PAGE.read_text(), found))
        return
    for name, table in found.items():
        print(f"{name}\n\n{table}\n")


def tables(days):
    """{name: table in Markdown}; ``days`` is a list of solves.Channels."""
    return {
        "recipe": table(days, recipe_rows),
        "users": table(days, user_rows),
        "commands": table(days, command_rows),
        "refusals": table(days, refusal_rows),
    }


def filled(text, found):
    """The page's text with the tables in it."""
    return BLOCK.sub(
        lambda block: f"<!-- {block[1]} -->\n{found[block[1]]}\n<!-- /{block[1]} -->", text
    )


def table(days, rows_of):
    """One row a question, one column a day; questions with the same answers share a row."""
    answers = {}
    for channels in days:
        for question, answer in rows_of(channels):
            answers.setdefault(question, []).append(answer)
    grouped = collections.defaultdict(list)
    for (about, detail), row in answers.items():
        grouped[about, tuple(row)].append(detail)
    lines = [[about, ", ".join(details), *row] for (about, row), details in grouped.items()]
    headers = ["what", "for", *(channels.date for channels in days)]
    return tabulate.tabulate(lines, headers, tablefmt="github")


def recipe_rows(channels):
    for platform in conda_forge.PLATFORMS:
        for label, answer in solves.recipe_answers(channels, platform).items():
            release, python, flavour = label.split(", ")
            yield (f"{release} {flavour}, {platform}", python.removeprefix("Python ")), answer


def user_rows(channels):
    for platform in conda_forge.PLATFORMS:
        answers = solves.user_answers(channels, platform)
        for (flavour, python, beside), answer in answers.items():
            yield (f"{flavour}, Python {python}, {platform}", beside), answer


def command_rows(channels):
    both = [channels.ours, channels.conda_forge]
    for command, specs in solves.documented_specs().items():
        solved = conda_forge.solve(both, [*specs, "python=3.11"])
        answer = solves.line_of(solved.refusal) if solved.refusal else _build(solved)
        yield (f"`{command}`", "linux-64"), answer


def _build(solved):
    """The numpy of an environment, without the hash: the recipe's next change gives another."""
    return re.sub(r"h[0-9a-f]{7}", "h*", f"{solved['numpy'].version} {solved['numpy'].build}")


def refusal_rows(channels):
    both = [channels.ours, channels.conda_forge]
    for specs, glibc, _ in solves.REFUSED:
        solved = conda_forge.solve(both, [*specs, "python=3.11"], glibc=glibc)
        yield (f"`{' '.join(specs)}`", f"glibc {glibc}"), solves.reason_of(solved.refusal)


if __name__ == "__main__":
    main()
