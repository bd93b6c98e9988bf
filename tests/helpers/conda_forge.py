"""A simulated conda-forge: real records as of a date, and ours as its toolchain makes them."""

import asyncio
import datetime
import functools
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import rattler
import zstandard
from rattler.exceptions import SolverError

RECORDS = Path(__file__).parents[1] / "solving" / "records.jsonl.zst"
# two days on which the newest openblas had no libblas yet, and the newest of the records
DATES = ("2026-05-05", "2026-07-31", "2026-08-22")
PLATFORMS = ("linux-64", "linux-aarch64")
_INDEX_KEYS = (
    *("name", "version", "build", "build_number", "depends", "constrains"),
    *("track_features", "noarch", "subdir"),
)


@functools.cache
def _all_rows():
    with open(RECORDS, "rb") as raw:
        stream = zstandard.ZstdDecompressor().stream_reader(raw)
        return [json.loads(line) for line in io.TextIOWrapper(stream, "utf-8")]


def rows(until=DATES[-1]):
    """The records that were there on a day, as dicts; reduce_records.py says what is in them.

    until : "2026-05-05"
    """
    day = datetime.datetime.fromisoformat(until).replace(tzinfo=datetime.UTC)
    end = (day + datetime.timedelta(days=1)).timestamp()
    return [row for row in _all_rows() if row["timestamp"] < end]


def write_channel(folder, channel_rows):
    """Write the index of a channel, without packages; its URL.

    channel_rows : dicts as ``rows`` and ``our_row`` give them
    """
    for subdir in (*PLATFORMS, "noarch"):
        repodata, run_exports = _empty_index(subdir), _empty_index(subdir)
        for row in channel_rows:
            if row["subdir"] != subdir:
                continue
            kind = "packages.conda" if row["fn"].endswith(".conda") else "packages"
            repodata[kind][row["fn"]] = _index_entry(row)
            exports = {"run_exports": row.get("run_exports", {})}
            run_exports[kind][row["fn"]] = exports
        (folder / subdir).mkdir(parents=True)
        (folder / subdir / "repodata.json").write_text(json.dumps(repodata))
        (folder / subdir / "run_exports.json").write_text(json.dumps(run_exports))
    return folder.absolute().as_uri() + "/"


def _empty_index(subdir):
    return {"info": {"subdir": subdir}, "packages": {}, "packages.conda": {}}


def _index_entry(row):
    entry = {key: row[key] for key in _INDEX_KEYS if key in row}
    # the file's hash and size are unknown, and no solver looks at them
    return {
        "constrains": [],
        "sha256": "0" * 64,
        "size": 1,
        **entry,
        "timestamp": row["timestamp"] * 1000,
    }


def virtual_packages(platform, glibc="2.28"):
    """What a host with a glibc has; 2.28 is RHEL 8's."""
    arch = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}[platform]
    facts = [("__unix", "0", "0"), ("__linux", "4.18", "0"), ("__glibc", glibc, "0")]
    return [
        rattler.GenericVirtualPackage(
            rattler.PackageName(name), rattler.Version(version), rattler.BuildString(build)
        )
        for name, version, build in [*facts, ("__archspec", "1", arch)]
    ]


@dataclass(frozen=True)
class Solved:
    """An environment that a solver found, or why it found none."""

    records: tuple = ()
    refusal: str = ""

    def __getitem__(self, name):
        """The record of a package."""
        (record,) = (each for each in self.records if each.name.normalized == name)
        return record

    def __contains__(self, name):
        return any(each.name.normalized == name for each in self.records)


def solve(channels, specs, platform="linux-64", glibc="2.28", **options):
    """Solve an environment, as Solved.

    channels : URLs, the first has priority
    specs : str, as on a command line
    options : more of rattler.solve's
    """
    try:
        found = asyncio.run(
            rattler.solve(
                sources=channels,
                specs=[rattler.MatchSpec(spec, strict=False) for spec in specs],
                platforms=[platform, "noarch"],
                virtual_packages=virtual_packages(platform, glibc),
                **options,
            )
        )
    except SolverError as error:
        return Solved(refusal=str(error))
    return Solved(records=tuple(found))


@dataclass(frozen=True)
class Environments:
    """What a variant of the recipe asks for, and what conda-forge answers.

    ``row`` is our package as a record of conda-forge's toolchain, or None where build or host
    has no solution.
    """

    build: Solved
    host: Solved
    test_specs: list = field(default_factory=list)  # one list of specs a test environment
    row: dict | None = None


def environments(rendered, channel, platform):
    """Solve a rendered variant's build and host environments, and derive our record from them.

    rendered : one of ``variant.render``'s
    channel : URL of a simulated conda-forge
    """
    recipe = rendered.recipe.to_dict()
    wanted = recipe["requirements"]
    build_platform = rendered.variant.get("build_platform", platform)
    build_specs = pinned(wanted["build"], rendered.variant)
    build = solve([channel], build_specs, build_platform)
    if build.refusal:
        return Environments(build, Solved(refusal="the build environment has no solution"))
    exported = exports_of(channel, build, names_of(build_specs), recipe)
    host_specs = pinned(wanted["host"], rendered.variant)
    host = solve([channel], [*host_specs, *exported.get("strong", [])], platform)
    if host.refusal:
        return Environments(build, host)
    from_host = exports_of(channel, host, names_of(host_specs), recipe)
    needs = [
        *wanted["run"],
        *exported.get("strong", []),
        *from_host.get("strong", []),
        *from_host.get("weak", []),
    ]
    constrains = [
        *wanted.get("run_constraints", []),
        *exported.get("strong_constrains", []),
        *from_host.get("strong_constrains", []),
        *from_host.get("weak_constrains", []),
    ]
    row = our_row(recipe, platform, needs, constrains)
    return Environments(build, host, specs_of_tests(recipe, row), row)


def pinned(specs, keys):
    """Specs with the variant's versions where the recipe names none, as the builder does it."""
    normal = {key.replace("_", "-"): value for key, value in keys.items()}
    return [
        f"{spec} {normal[spec.replace('_', '-')]}" if spec.replace("_", "-") in normal else spec
        for spec in specs
    ]


def names_of(specs):
    """The packages that specs name."""
    return {spec.split()[0] for spec in specs}


def exports_of(channel, solved, names, recipe):
    """What the packages of an environment that the recipe names export: {"weak": [spec, ...], ...}.

    As rattler-build takes them: dependencies of dependencies export nothing, and
    ``ignore_run_exports`` drops what it names.
    """
    ignored = recipe["requirements"].get("ignore_run_exports", {})
    found = {}
    for record in solved.records:
        name = record.name.normalized
        if name not in names or name in ignored.get("from_package", []):
            continue
        exports = _exports_in(channel, record.subdir).get(record.file_name, {})
        for kind, specs in exports.items():
            kept = [each for each in specs if each.split()[0] not in ignored.get("by_name", [])]
            found.setdefault(kind, []).extend(kept)
    return found


@functools.cache
def _exports_in(channel, subdir):
    path = Path(channel.removeprefix("file://"), subdir, "run_exports.json")
    index = json.loads(path.read_text())
    both = {**index["packages"], **index["packages.conda"]}
    return {fn: entry["run_exports"] for fn, entry in both.items()}


def our_row(recipe, platform, needs, constrains):
    """Our package of a rendered recipe as a record."""
    package, build = recipe["package"], recipe["build"]
    return {
        "name": package["name"],
        "version": package["version"],
        "build": build["string"],
        "build_number": build["number"],
        "subdir": platform,
        "fn": f"{package['name']}-{package['version']}-{build['string']}.conda",
        "timestamp": int(datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC).timestamp()),
        "depends": list(dict.fromkeys(needs)),
        "constrains": list(dict.fromkeys(constrains)),
        "run_exports": recipe["requirements"].get("run_exports", {}),
    }


def specs_of_tests(recipe, row):
    """The environments of a recipe's tests: a list of lists of specs, our package in each."""
    ours = f"numpy=={row['version']}={row['build']}"
    found = []
    for test in recipe["tests"]:
        specs = [ours, *test.get("requirements", {}).get("run", [])]
        if "python" in test:
            specs.append("pip")  # for `pip check`
        if specs not in found:
            found.append(specs)
    return found
