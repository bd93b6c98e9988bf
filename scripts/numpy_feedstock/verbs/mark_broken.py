"""mark-broken: keep solvers from builds that a channel holds and that are known to be broken.

A reviewed list, broken.yaml, names each build and the reason. Its lines become the
repodata patch of the channel, which every indexing applies: the packages and what is
installed stay as they are. A line that is removed brings its build back.
"""

import contextlib
import datetime
import functools
import json
import os
import re
import sys
import tempfile
from pathlib import Path

from audit_numpy import gate

from .. import channel, checks, files, options
from ..errors import FeedstockError, UsageError

EPILOG = """\
examples:
  feedstock mark-broken /srv/channel --suggest    lines for the numpys in it that need the patch
  feedstock mark-broken /srv/channel --dry-run    what would change in the index
  feedstock mark-broken /srv/channel              change it
  feedstock mark-broken /srv/channel --list ours.yaml

exit code: 0 the index is as the list says, 2 wrong use, or a list that is not right
"""
LIST = Path(__file__).parents[1] / "broken.yaml"

# As conda's own indexer writes it where a build is revoked: no package has this name. The
# instructions `revoke` and `remove` are no use here: py-rattler's indexer ignores the one, and
# of the other it leaves the entry in its place, where conda, unlike rattler, still takes it.
UNSATISFIABLE = "package_has_been_revoked"


def _is_text(pattern):
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value)


def _is_package(value):
    from rattler import Subdir

    subdirs = "|".join(map(str, Subdir.all()))
    return _is_text(rf"({subdirs})/[a-z0-9_.-]+-[\w.!+]+-[\w.+]+\.conda")(value)


# of an entry's keys: in words, and whether a value is right
_FORMS = {
    "package": (
        "subdir/name-version-build.conda",
        _is_package,
    ),
    "reason": ("a text", _is_text(r"(?s).*\S.*")),
    "added": ("a date, 2026-11-25", lambda value: type(value) is datetime.date),
    "sha256": ("64 hexadecimal digits", _is_text("[0-9a-f]{64}")),
    "only_with": ("the name of a package", _is_text("[a-z0-9_][a-z0-9_.-]*")),
}
_OPTIONAL = {"sha256", "only_with"}


def configure_parser(parser):
    parser.add_argument(
        "channel",
        type=Path,
        metavar="CHANNEL_FOLDER",
        help="the folder of the channel, with linux-64/ in it",
    )
    parser.add_argument(
        "--list",
        type=Path,
        default=LIST,
        metavar="FILE",
        help="the list (default: broken.yaml beside this verb)",
    )
    does = parser.add_mutually_exclusive_group()
    does.add_argument(
        "--suggest",
        action="store_true",
        help="only print lines, to be reviewed, for what the list lacks",
    )
    options.add_dry_run(does, "only show what would change in the index")
    options.add_json(parser)


def execute(args):
    """Run the verb; exit code 0. UsageError for a bad list and for what is no channel."""
    if not any(args.channel.glob("*/repodata.json")):
        raise UsageError(
            f"not the folder of an indexed channel: {args.channel}",
            expected="linux-64/repodata.json in it",
        )
    entries = read(args.list)
    if args.suggest:
        suggested = suggest(args.channel, {entry["package"] for entry in entries})
        print(json.dumps(suggested, indent=1) if args.json else _as_yaml(suggested))
        print(f"{len(suggested)} unpatched builds of numpy are not in {args.list}", file=sys.stderr)
        return 0
    # to look at a channel must not need the right to write there
    with (
        contextlib.nullcontext()
        if args.dry_run
        else channel.locked(args.channel, functools.partial(print, file=sys.stderr))
    ):
        before = index_of(args.channel)
        wanted, known = instructions(entries, args.channel), in_force(args.channel)
        after = expected(args.channel, before, wanted, known)
        if not args.dry_run and (wanted, before) != (known, after):
            add_patch(args.channel, wanted)
            # all of it: the indexer takes a name that it knows, as that of the patch, for the bytes that it knows
            channel.index(args.channel, force=True)
            after = index_of(args.channel)
            check_applied(after, wanted)
    report(args, entries, before, after)
    return 0


def read(path):
    """The entries of a list, each a dict; UsageError names the line of what is wrong."""
    import yaml

    try:
        loader = yaml.SafeLoader(path.read_text())
        tree = loader.get_single_node()
        if not isinstance(tree, yaml.SequenceNode):
            # also one that lost its content: it would unmark all
            raise UsageError(
                f"no list: {path}", expected="entries that begin with a dash, or [] for none"
            )
        entries = [
            (node.start_mark.line + 1, _keys(node), loader.construct_object(node, deep=True))
            for node in tree.value
        ]
    except OSError as error:
        raise UsageError(f"the list cannot be read: {path}", found=error.strerror) from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(
            f"the list is not YAML: {path}", found=" ".join(str(error).split())
        ) from None
    seen = {}
    for line, keys, entry in entries:
        _check(entry, keys, f"{path} line {line}")
        if entry["package"] in seen:
            raise UsageError(
                f"{path} line {line}: listed twice: {entry['package']}",
                found=f"first on line {seen[entry['package']]}",
            )
        seen[entry["package"]] = line
    return [entry for _, _, entry in entries]


def _keys(node):
    # of a key that is there twice the dict has only the last
    import yaml

    return [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []


def _check(entry, keys, where):
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: no entry", expected=", ".join(_FORMS), found=entry)
    for key in keys:
        if key not in _FORMS:
            raise UsageError(f"{where}: unknown key: {key}", known=", ".join(_FORMS))
        if keys.count(key) > 1:
            raise UsageError(
                f"{where}: the key {key} is there twice", remedy="begin each entry with a dash"
            )
    for key, (form, good) in _FORMS.items():
        if key not in entry and key in _OPTIONAL:
            continue
        if not good(entry.get(key)):
            remedy = (
                {
                    "remedy": "name each build; feedstock mark-broken CHANNEL_FOLDER --suggest prints them"
                }
                if key == "package"
                else {}
            )
            raise UsageError(
                f"{where}: {key} is {'wrong' if key in entry else 'missing'}",
                expected=form,
                found=entry.get(key),
                **remedy,
            )


def instructions(entries, folder):
    """{subdir: patch instructions} for the entries whose packages the channel holds.

    Raises UsageError when a file of that name is another one.
    """
    found = {}
    for entry in entries:
        path = folder / entry["package"]
        if not path.is_file():
            continue
        if "sha256" in entry and files.sha256(path) != entry["sha256"]:
            raise UsageError(
                f"another file than the list means: {path}",
                expected=f"sha256 {entry['sha256']}",
                found=files.sha256(path),
                remedy="correct the list, or name a list of your own with --list",
            )
        depends, constrains = _requirements(path)
        if "only_with" in entry:
            change = {
                "constrains": [*constrains, f"{entry['only_with']} <0a0"]
            }  # no version is that old
        else:
            change = {"depends": [*depends, UNSATISFIABLE]}
        found.setdefault(path.parent.name, {}).setdefault("packages.conda", {})[path.name] = change
    return found


def _requirements(path):
    """(depends, constrains) as the package itself says."""
    from rattler_build import Package, RattlerBuildError

    try:
        package = Package.from_file(path)
    except RattlerBuildError as error:
        raise UsageError(f"not a whole conda package: {path}", found=error) from None
    return list(package.depends), list(package.constrains)


@contextlib.contextmanager
def _unpacked(path):
    from rattler.package_streaming import extract

    with tempfile.TemporaryDirectory() as folder:
        try:
            extract(path, folder)
        except OSError as error:
            raise UsageError(f"not a whole conda package: {path}", found=error) from None
        yield Path(folder)


def in_force(folder):
    """The instructions of the patch package that the channel has; {} without one."""
    package = folder / "noarch" / channel.PATCH_PACKAGE
    if not package.exists():
        return {}
    with _unpacked(package) as content:
        found = {
            path.parent.name: json.loads(path.read_text())
            for path in content.glob("*/patch_instructions.json")
        }
    return {subdir: lines for subdir, lines in found.items() if lines}


def add_patch(folder, wanted):
    """Put the patch package with these instructions into the channel."""
    from rattler_build import assemble_package

    name, version, build = channel.PATCH_PACKAGE.removesuffix(".conda").rsplit("-", 2)
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as content:
        # also what says nothing of a subdir: without it the indexer would keep what was patched there before
        for path in folder.glob("*/repodata.json"):
            written = Path(content, path.parent.name, "patch_instructions.json")
            written.parent.mkdir()
            written.write_text(json.dumps(wanted.get(path.parent.name, {}), indent=1))
        package = assemble_package(
            name,
            version,
            "noarch",
            build,
            made,
            files_dir=content,
            noarch="generic",
            detect_prefix=False,
            summary="Changes to this channel's index, which its indexer applies; nothing to install.",
        )
        channel.copy(package.path, folder / "noarch" / channel.PATCH_PACKAGE, os.replace)


def index_of(folder):
    """{"subdir/file name": its entry in the index}, of all but the patch package."""
    found = {}
    for path in sorted(folder.glob("*/repodata.json")):
        index = json.loads(path.read_text())
        for name, entry in {**index.get("packages", {}), **index.get("packages.conda", {})}.items():
            if name != channel.PATCH_PACKAGE:
                found[f"{path.parent.name}/{name}"] = entry
    return found


def expected(folder, before, wanted, known):
    """The index after these instructions, where ``known`` were in force before."""
    after = dict(before)
    touched = {
        f"{subdir}/{name}"
        for each in (wanted, known)
        for subdir in each
        for name in each[subdir].get("packages.conda", {})
    }
    for name in sorted(touched & before.keys()):
        if not (folder / name).is_file():
            continue
        depends, constrains = _requirements(folder / name)
        subdir, filename = name.split("/")
        change = {
            "depends": depends,
            "constrains": constrains,
            **wanted.get(subdir, {}).get("packages.conda", {}).get(filename, {}),
        }
        entry = {**before[name], **change}
        # the indexer leaves out what is empty
        after[name] = {
            key: value for key, value in entry.items() if value != [] or key in before[name]
        }
    return after


def check_applied(index, wanted):
    """Raise FeedstockError unless the index says what the instructions do."""
    for subdir, lines in wanted.items():
        for name, change in lines["packages.conda"].items():
            found = index.get(f"{subdir}/{name}", {})
            if any(found.get(field) != value for field, value in change.items()):
                raise FeedstockError(
                    f"the indexer did not apply the patch to {subdir}/{name}",
                    expected=change,
                    found=found,
                )


def suggest(folder, listed):
    """Entries for the builds of numpy in the channel whose import multiplies matrices and that are not listed."""
    found = []
    # in Anaconda's own channel the files are in numpy-base
    name = re.compile("numpy(-base)?-({})-".format("|".join(map(re.escape, checks.applies_to()))))
    for path in sorted(folder.glob("linux-*/numpy-*.conda")):
        if f"{path.parent.name}/{path.name}" in listed or not name.match(path.name):
            continue
        with _unpacked(path) as content:
            sources = content.glob("lib/python3.*/site-packages/numpy/__init__.py")
            if "ungated" not in [gate(source.read_text()) for source in sources]:
                continue
        entry = {"package": f"{path.parent.name}/{path.name}", "sha256": files.sha256(path)}
        # built for whatever BLAS the environment has: the others are not at fault
        if not any(
            re.match(r"mkl\b|(libblas|blas) .*mkl", spec) for spec in _requirements(path)[0]
        ):
            entry["only_with"] = "mkl"
        entry["reason"] = "the import hangs inside dlopen with MKL (numpy#31284)"
        entry["added"] = str(datetime.datetime.now(datetime.UTC).date())
        found.append(entry)
    return found


def _as_yaml(entries):
    # the date unquoted, as the list wants it
    import yaml

    dated = [{**entry, "added": datetime.date.fromisoformat(entry["added"])} for entry in entries]
    return yaml.safe_dump(dated, sort_keys=False, width=1000).strip() if entries else ""


def report(args, entries, before, after):
    """What differs between the two states of the index, as JSON or as lines."""
    reasons = {entry["package"]: entry["reason"] for entry in entries}
    names = sorted(before.keys() | after.keys())
    changed = {
        name: changes
        for name in names
        if (changes := difference(before.get(name, {}), after.get(name, {})))
    }
    marked = [name for name in reasons if (args.channel / name).is_file()]
    absent = [name for name in reasons if name not in marked]
    if args.json:
        print(
            json.dumps(
                {
                    "dry_run": args.dry_run,
                    "changed": changed,
                    "marked": marked,
                    "not_in_channel": absent,
                },
                indent=1,
            )
        )
        return
    for name, changes in changed.items():
        print(f"{name}: {reasons.get(name, 'not listed, so as the package itself says')}")
        for field, lines in changes.items():
            print("\n".join(f"  {field:10} {line}" for line in lines))
    done = f"{len(changed)} of {len(after)} entries of the index {'would change' if args.dry_run else 'changed'}"
    print(
        f"{done if changed else 'nothing to do'}; of the {len(reasons)} builds in {args.list.name} the channel holds {len(marked)}"
    )
    for name in absent:
        print(f"  not in the channel: {name}")


def difference(before, after):
    """{field: what an entry of the index lost ("- ...") and gained ("+ ...")}, of what solvers and installers go by."""
    changes = {}
    for field in ("depends", "constrains", "track_features", "sha256"):
        old, new = (
            value if isinstance(value, list) else [value]
            for value in (before.get(field, []), after.get(field, []))
        )
        if lines := [f"- {each}" for each in old if each not in new] + [
            f"+ {each}" for each in new if each not in old
        ]:
            changes[field] = lines
    return changes
