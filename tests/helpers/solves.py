"""The solves that docs/solving.md is a table of, each with its answer in a few words.

An answer is SOLVED, or NO_RECORD and the package, or the line of the refusal that names a package.
NO_RECORD stands where the same question without our package has no solution either: then the
records lack something that conda-forge had.
"""

import functools
import re
import shlex
from dataclasses import dataclass

from helpers import conda_forge
from numpy_feedstock import paths, variant

SOLVED = "solved"
NO_RECORD = "no record of"
RELEASE = "2.3.5"
FLAVOUR_PACKAGES = {"mkl-devel", "mkl", "openblas", "libopenblas", "libblas"}
FIVE = ("scipy", "pandas", "pyarrow", "scikit-learn", "numba")
# what users have beside numpy: {in words: specs}
BESIDES = {
    "numpy alone": (),
    **{name: (name,) for name in FIVE},
    "these five": FIVE,
    "pytorch": ("pytorch=*=cpu*",),
}
PAGES = ("README.md", "scripts/fleet/README.md", "docs/pinning.md")
MKL = f"numpy={RELEASE}=mkl*_1*"
OPENBLAS = f"numpy={RELEASE}=openblas*_1*"
# what picks a flavour, and what an environment then has
USER_FLAVOURS = {
    "linux-64": {
        "mkl 2025": (MKL, "mkl=2025", "libblas=*=*_mkl"),
        "mkl 2026": (MKL, "mkl=2026", "libblas=*=*_mkl"),
        "openblas": (OPENBLAS, "libblas=*=*_openblas"),
    },
    "linux-aarch64": {
        "openblas": (OPENBLAS, "libblas=*=*_openblas"),
    },
}
# what cannot be had: specs, the host's glibc, what the refusal has to name
REFUSED = (
    ([MKL], "2.17", "__glibc >=2.28"),
    ([OPENBLAS], "2.17", "__glibc >=2.28"),
    ([MKL], "2.27", "__glibc >=2.28"),
    ([MKL, "mkl=2024"], "2.28", "mkl >=2025"),
    ([OPENBLAS, "libopenblas=0.3.29"], "2.28", "libopenblas >=0.3."),
    ([MKL, "libblas=*=*_openblas"], "2.28", "libblas * *_mkl"),
)


@dataclass(frozen=True)
class Channels:
    """A simulated conda-forge of one day and our channel, built from it on that day: URLs."""

    date: str
    conda_forge: str
    ours: str
    control: str  # conda-forge, with an unpatched build of RELEASE for each Python


def make_channels(folder, date):
    """Write the channels of one day below a folder."""
    rows = conda_forge.rows(date)
    url = conda_forge.write_channel(folder / "conda-forge", rows)
    ours, control = [], list(rows)
    for platform in conda_forge.PLATFORMS:
        ours += our_rows(url, platform)
        control += unpatched_rows(rows, platform)
    return Channels(
        date,
        url,
        conda_forge.write_channel(folder / "ours", ours),
        conda_forge.write_channel(folder / "control", control),
    )


def our_rows(url, platform):
    """Our records of every variant, as built on the day of the channel.

    A variant whose host environment lacks a record is that of another Python: only python_abi
    is different.
    """
    found, siblings = [], {}
    for rendered in variant.render(platform, {}):
        row = conda_forge.environments(rendered, url, platform).row
        sibling = (rendered.variant["numpy_release"], rendered.variant["blas_impl"])
        if row:
            siblings[sibling] = row
        found.append((rendered, sibling, row))
    return [
        row or _for_variant(siblings[sibling], rendered)
        for rendered, sibling, row in found
        if sibling in siblings
    ]


def _for_variant(row, rendered):
    build = rendered.recipe.to_dict()["build"]["string"]
    minor = rendered.variant["python"].split(".*")[0].replace(".", "")
    return {
        **_for_python(row, minor),
        "build": build,
        "fn": f"numpy-{row['version']}-{build}.conda",
    }


def unpatched_rows(rows, platform):
    """conda-forge's own build of RELEASE for the Pythons that no lock file had one for."""
    real = [
        row
        for row in rows
        if (row["name"], row["version"], row["subdir"]) == ("numpy", RELEASE, platform)
    ]
    found = []
    for python in variant.known_pythons():
        minor = python.replace(".", "")
        if not any(row["build"].startswith(f"py{minor}h") for row in real):
            found.append(_for_python(real[-1], minor))
    return found


def _for_python(row, minor):
    python = f"3.{minor[1:]}"
    depends = [spec for spec in row["depends"] if not re.match(r"python_abi|python 3", spec)] + [
        f"python_abi {python}.* *_cp{minor}"
    ]
    build = re.sub(r"^py3\d+", f"py{minor}", row["build"])
    return {**row, "build": build, "fn": f"numpy-{RELEASE}-{build}.conda", "depends": depends}


def line_of(refusal):
    """The line of a solver's refusal that names a package."""
    lines = [re.sub(r"^[\s│├└─]+", "", line) for line in refusal.splitlines()]
    lines[0] = lines[0].removeprefix("Cannot solve the request because of: ")
    named = [line for line in lines if not line.startswith("The following packages are incom")]
    return named[0].removesuffix(":")


def reason_of(refusal):
    """The lines of a refusal from our package to what is in the way, in one."""
    lines = [re.sub(r"^[\s│├└─]+", "", line) for line in refusal.splitlines()]
    reasons = [line for line in lines if re.search(r"which (cannot|conflicts)|no candidates", line)]
    return reasons[0] if reasons else line_of(refusal)


def answer(solved, control_channel, platform, *controls):
    """The answer to a question that was solved.

    controls : lists of specs, the same question without our package; asked after a refusal
    """
    if not solved.refusal:
        return SOLVED
    for specs in controls:
        control = conda_forge.solve([control_channel], specs, platform)
        if control.refusal:
            line = line_of(control.refusal).removeprefix("No candidates were found for ")
            return f"{NO_RECORD} {line.split()[0]}"
    return line_of(solved.refusal)


def label_of(rendered):
    """A variant in words: "2.3.5, Python 3.11, mkl 2025"."""
    release = rendered.variant["numpy_release"].split()[0]
    python = rendered.variant["python"].split(".*")[0]
    return f"{release}, Python {python}, {rendered.variant['blas_impl']}"


@functools.cache
def recipe_answers(channels, platform):
    """{variant: answer} for build, host and test environments together."""
    return {
        label_of(rendered): recipe_answer(channels, platform, rendered)
        for rendered in variant.render(platform, {})
    }


def recipe_answer(channels, platform, rendered):
    """The answer for one variant; a refusal begins with the environment's kind."""
    found = conda_forge.environments(rendered, channels.conda_forge, platform)
    if found.build.refusal:
        return f"build: {line_of(found.build.refusal)}"
    wanted = rendered.recipe.to_dict()["requirements"]["host"]
    if found.host.refusal:
        flavour = [spec for spec in wanted if spec.split()[0] in FLAVOUR_PACKAGES]
        neutral = [spec for spec in wanted if spec not in flavour]
        questions = [conda_forge.pinned(neutral, rendered.variant), *([spec] for spec in flavour)]
        return _of_kind("host", answer(found.host, channels.conda_forge, platform, *questions))
    python = f"python={rendered.variant['python'].split('.*')[0]}"
    for specs in found.test_specs:
        solved = conda_forge.solve([channels.ours, channels.conda_forge], specs, platform)
        control = [python, *specs[1:]]
        found_answer = answer(solved, channels.conda_forge, platform, control)
        if found_answer != SOLVED:
            return _of_kind("test", found_answer)
    return SOLVED


def _of_kind(kind, text):
    return text if text.startswith(NO_RECORD) else f"{kind}: {text}"


@functools.cache
def user_answers(channels, platform):
    """{(flavour, Python, packages beside numpy): answer} for environments of users."""
    found = {}
    for flavour, (numpy, *rest) in USER_FLAVOURS[platform].items():
        for python in variant.known_pythons():
            for beside, packages in BESIDES.items():
                specs = [f"python={python}", *rest, *packages]
                found[flavour, python, beside] = user_answer(
                    channels, [numpy, *specs], specs, platform
                )
    return found


def user_answer(channels, specs, neutral, platform):
    """The answer for a user's specs; ``neutral`` is the same without the pin to our build."""
    both = [channels.ours, channels.conda_forge]
    solved = conda_forge.solve(both, specs, platform)
    control = [f"numpy={RELEASE}", *neutral]
    if not solved.refusal and not is_ours(solved["numpy"]):
        return f"conda-forge's own build: {solved['numpy'].file_name}"
    return answer(solved, channels.control, platform, control)


def is_ours(record):
    """Whether a solved numpy is a build of this project."""
    return record.build_number >= 100


def documented_specs():
    """{command as its page has it: specs} of every command that installs our numpy."""
    found = {}
    for page in PAGES:
        path = paths.ROOT / page
        text = path.read_text() if path.exists() else ""
        for line in re.findall(r"^\$ ((?:conda|mamba|pixi) .*)", text, re.MULTILINE):
            specs = specs_of(line)
            if specs:
                found[line] = specs
    return found


def specs_of(line):
    """The specs in a command of conda or pixi, [] for one that installs no numpy."""
    words = shlex.split(line)[1:]
    if words[0] not in ("create", "install", "add"):
        return []
    specs, options = [], iter(words[1:])
    for word in options:
        if word in ("-n", "-c", "-p"):
            next(options)
        elif not word.startswith("-"):
            specs.append(word)
    return specs if any(spec.startswith("numpy") for spec in specs) else []
