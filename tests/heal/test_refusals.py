"""Where the healer writes nothing, and says why: real mounts, locks and users."""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time

import pytest

from helpers import debian, installed
from helpers.healer import heal
from helpers.installed import source_of
from helpers.users import root_only

NOBODY = 65534
# one that every user can run, unlike pyenv's in root's home
SYSTEM_PYTHON = "/usr/bin/python3"


def refused(env, word, *options, original=None, **how):
    """Dry run and apply say the same, and nothing is written."""
    for option in ("--dry-run", "--apply"):
        run = heal(option, *options, env, **how)
        assert (run.code, run.results) == (1, ["refused"]), run
        assert word in run.reasons
        assert run.rows[0]["changed"] == []
    if original is not None:
        assert installed.differences(original, env) == ""


def test_an_edited_text(copy):
    env = copy("pip")
    text = source_of(env).read_text()
    source_of(env).unlink()
    source_of(env).write_text(text + "# mine\n")
    refused(env, "edited")
    assert source_of(env).read_text() == text + "# mine\n"


@pytest.mark.parametrize("text", ["", "import sys\n"])
def test_a_text_that_was_cut_off(copy, text):
    env = copy("pip")
    source_of(env).unlink()
    source_of(env).write_text(text)
    refused(env, "edited")


def test_a_frozen_prefix(copy):
    env = copy("rattler")
    (env / "conda-meta" / "frozen").touch()
    refused(env, "frozen")


def test_a_numpy_that_is_a_link(copy, originals):
    env = copy("pip")
    numpy = source_of(env).parent
    numpy.rename(env / "elsewhere")
    numpy.symlink_to(env / "elsewhere")
    refused(env, "symbolic link")


def test_files_that_uv_links(originals, workplace, tmp_path):
    wheel = installed.wheel_file("2.3.5", originals("pip").parents[1] / "wheels")
    env = installed.with_uv(
        wheel, tmp_path / "env", workplace / "caches" / "links", "--link-mode", "symlink"
    )
    refused(env, "symbolic link")


def test_a_package_cache(originals, workplace):
    originals("rattler")
    (package,) = [
        each for each in (workplace / "caches" / "rattler").rglob("numpy-2.3.5-*") if each.is_dir()
    ]
    refused(package / installed.SITE_PACKAGES, "cache")


@root_only
def test_a_read_only_mount(copy, originals):
    env = copy("pip")
    subprocess.run(["mount", "--bind", env, env], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", env], check=True)
        refused(env, "read-only", original=originals("pip"))
    finally:
        subprocess.run(["umount", env], check=True)


@root_only
@pytest.mark.parametrize("attribute", "ia")
@pytest.mark.parametrize("place", ["file", "folder"])
def test_an_attribute_of_the_file_system(copy, attribute, place):
    env = copy("pip")
    path = source_of(env)
    # the attribute is of the inode, which the copy shares
    text = path.read_bytes()
    path.unlink()
    path.write_bytes(text)
    if place == "folder":
        path = path.parent
    if subprocess.run(["chattr", f"+{attribute}", path], capture_output=True).returncode:
        pytest.skip("this file system has no such attributes")
    try:
        refused(env, "immutable or append-only")
    finally:
        subprocess.run(["chattr", f"-{attribute}", path], check=True)


@root_only
def test_a_layer_of_a_mounted_overlay(copy, workplace):
    env = copy("pip", name="lower")
    folder = env.parent
    # an overlay cannot lie on another one
    small = folder / "tmpfs"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", small], check=True)
    merged = folder / "merged"
    try:
        for name in ("upper", "work"):
            (small / name).mkdir()
        merged.mkdir()
        options = f"lowerdir={env},upperdir={small}/upper,workdir={small}/work"
        mounted = subprocess.run(["mount", "-t", "overlay", "none", "-o", options, merged])
        if mounted.returncode:
            pytest.skip("an overlay cannot be mounted here")
        try:
            refused(env, "layer")
            assert heal("--apply", merged).results == ["healed"]
            assert heal("--undo", merged).results == ["undone"]
        finally:
            subprocess.run(["umount", merged], check=True)
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize(
    ("folder", "word"),
    [
        ("docker/overlay2/0123abcd/diff", "layer"),
        ("docker/vfs/dir/0123abcd", "layer"),
        ("containers/storage/btrfs/subvolumes/0123abcd", "layer"),
        ("io.containerd.snapshotter.v1.native/snapshots/12", "layer"),
        ("nix/store/0abc-env", "store of Nix or Guix"),
        ("gnu/store/0abc-env", "store of Nix or Guix"),
    ],
)
@pytest.mark.parametrize("way", [[], ["--startup-file"]], ids=["in place", "start-up file"])
def test_what_a_container_engine_or_a_store_keeps(copy, folder, word, way):
    env = copy("pip")
    moved = env.parent / folder / "env"
    moved.parent.mkdir(parents=True)
    env.rename(moved)
    refused(moved, word, *way)


def test_a_text_of_an_unknown_release(copy):
    env = copy("pip")
    (source_of(env).parent / "version.py").unlink()
    source_of(env).unlink()
    source_of(env).write_text("import sys\n")
    refused(env, "edited")


@root_only
def test_the_files_of_a_debian_package(copy, workplace):
    if not shutil.which("dpkg"):
        pytest.skip("this is no Debian")
    env = copy("pip")
    tree = env.parent / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = "Package: heal-test-numpy\nVersion: 1\nArchitecture: all\n"
    control += "Maintainer: nobody <nobody@example.com>\nDescription: test\n"
    (tree / "DEBIAN" / "control").write_text(control)
    place = tree / str(source_of(env)).lstrip("/")
    place.parent.mkdir(parents=True)
    place.write_bytes(source_of(env).read_bytes())
    package = env.parent / "test.deb"
    subprocess.run(["dpkg-deb", "-b", tree, package], check=True, capture_output=True)
    with debian.alone():
        subprocess.run(["dpkg", "-i", package], check=True, capture_output=True)
        try:
            refused(env, "heal-test-numpy")
            assert heal("--apply", "--startup-file", env).results == ["healed"]
        finally:
            subprocess.run(["dpkg", "-P", "heal-test-numpy"], check=True, capture_output=True)


@root_only
def test_another_users_prefix(copy, originals):
    env = copy("pip")
    how = {"python": SYSTEM_PYTHON, "command": as_user(NOBODY)}
    refused(env, "belongs to user root", original=originals("pip"), **how)


@root_only
def test_files_of_two_owners(copy):
    env = copy("pip")
    own(env, NOBODY)
    (record,) = installed.site_packages(env).glob("numpy-*.dist-info/RECORD")
    os.chown(record, 0, 0)
    refused(env, "belongs to user root")


def test_a_folder_that_its_owner_may_not_write(copy):
    if os.geteuid() == 0:
        env = copy("pip")
        own(env, NOBODY)
        how = {"python": SYSTEM_PYTHON, "command": as_user(NOBODY)}
    else:
        env, how = copy("pip"), {}
    folder = source_of(env).parent
    folder.chmod(0o555)
    refused(env, "its mode is 555", **how)


def as_user(uid):
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def own(env, uid):
    """Give an environment's files, which a copy shares, to a user, as files of its own."""
    for folder, names, files in os.walk(env):
        for name in names + files:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                data = os.stat(path)
                if name.endswith((".so", ".a")):
                    os.unlink(path)  # large, and of no use here
                    continue
                shutil.copy2(path, path + ".own")
                os.utime(path + ".own", ns=(data.st_atime_ns, data.st_mtime_ns))
                os.replace(path + ".own", path)
            os.chown(path, uid, uid, follow_symlinks=False)
    os.chown(env, uid, uid)


LOCKS = {"uv": (".lock", fcntl.flock), "mamba": ("conda-meta/conda-meta.lock", fcntl.lockf)}


@pytest.mark.parametrize("installer", LOCKS)
def test_an_installer_that_holds_its_lock(copy, installer):
    env = copy("rattler")
    name, lock = LOCKS[installer]
    (env / name).unlink(missing_ok=True)
    program = (
        f"import fcntl, time; f = open({str(env / name)!r}, 'w');"
        f"fcntl.{lock.__name__}(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(1000)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        run = heal("--apply", env)
        assert run.results == ["refused"] and "an installer works there" in run.reasons
    finally:
        holder.kill()
        holder.communicate()
    assert heal("--apply", env).results == ["healed"]


def opened_by(reader, fifo):
    """Wait until a process reads from a fifo. Returns the file that it waits for."""
    while True:
        assert reader.poll() is None
        try:
            return os.fdopen(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK), "w")
        except OSError:  # nobody reads from it yet
            time.sleep(0.1)


def test_a_pip_that_works_there(copy):
    env = copy("pip")
    # pip asks for a name and a password, and waits
    command = [sys.executable, "-m", "pip", "--python", env / "bin" / "python", "install", "-"]
    fifo = env.parent / "requirements.txt"
    os.mkfifo(fifo)
    installer = subprocess.Popen(
        [*command[:-1], "-r", fifo], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with opened_by(installer, fifo):
            refused(env, "an installer works there")
    finally:
        installer.kill()
        installer.wait()
    assert heal(env).results == ["would-heal"]


@pytest.mark.parametrize(
    ("arguments", "is_about"),
    [
        (["-p", "{env}"], True),
        (["-p", "./{name}"], True),
        (["--prefix=../{parent}/{name}"], True),
        (["-p{env}"], True),
        (["-p", "other"], False),
        (["-n", "{name}"], True),
        (["--name={name}"], True),
        (["-n{name}"], True),
        (["-n", "base"], True),
        (["-n", "other"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_conda_that_works_there(copy, arguments, is_about):
    # tests that run at the same time see these processes, too
    env = copy("rattler", name=f"conda-{os.getpid()}")
    if "base" in arguments:
        (env / "bin").mkdir(exist_ok=True)
        (env / "bin" / "conda").touch()
    program = env.parent / "conda"
    program.write_text("import time\nprint('started', flush=True)\ntime.sleep(100)\n")
    names = {"env": env, "name": env.name, "parent": env.parent.name}
    command = [sys.executable, program, "install", *(each.format(**names) for each in arguments)]
    installer = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=env.parent)
    try:
        assert installer.stdout.readline() == b"started\n"
        run = heal(env)
        assert run.results == (["refused"] if is_about else ["would-heal"]), run
    finally:
        installer.kill()
        installer.communicate()


def test_another_run_of_this_tool(copy):
    env = copy("pip")
    lock = installed.site_packages(env) / ".heal_numpy.lock"
    with lock.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        run = heal("--apply", env)
        assert run.results == ["refused"] and "another run" in run.reasons
    assert heal("--apply", env).results == ["healed"]
    assert not lock.exists()


@root_only
def test_root_becomes_the_owner_before_it_writes(copy):
    env = copy("pip")
    own(env, NOBODY)
    assert heal("--apply", env).results == ["healed"]
    for path in env.rglob("*"):
        assert path.lstat().st_uid == NOBODY, path


@root_only
def test_root_never_runs_a_users_python_as_root(copy):
    env = copy("uv")
    own(env, NOBODY)
    said = env.parent / "said"
    said.mkdir()
    os.chown(said, NOBODY, NOBODY)
    python = env / "bin" / "python3.99"
    python.write_text(f"#!/bin/sh\nid -u >> {said}/uid\n")
    python.chmod(0o755)
    (env / "lib" / "python3.99").mkdir()
    cache = source_of(env).parent / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "__init__.cpython-399.pyc").write_bytes(b"\x99\x99\r\n" + bytes(12) + b"code")
    for path in (python, env / "lib" / "python3.99", cache, cache / "__init__.cpython-399.pyc"):
        os.chown(path, NOBODY, NOBODY)
    assert heal(env).results == ["would-heal"]
    assert not (said / "uid").exists(), "a dry run runs nothing"
    assert heal("--apply", env).results == ["healed"]
    assert set((said / "uid").read_text().split()) == {str(NOBODY)}


@root_only
def test_a_python_that_others_can_change_is_not_run(copy):
    env = copy("uv")
    said = env.parent / "said"
    python = env / "bin" / "python3.99"
    python.write_text(f"#!/bin/sh\ntouch {said}\n")
    python.chmod(0o777)
    (env / "lib" / "python3.99").mkdir()
    cache = source_of(env).parent / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "__init__.cpython-399.pyc").write_bytes(b"\x99\x99\r\n" + bytes(12) + b"code")
    assert heal("--apply", env).results == ["healed"]
    assert not said.exists()
    assert heal("--apply", "--python", python, env).code == 2


def test_mode_and_attributes_stay(copy):
    env = copy("pip")
    source = source_of(env)
    text = source.read_bytes()
    source.unlink()
    source.write_bytes(text)
    source.chmod(0o640)
    acl = struct.pack("<I", 2)
    # user::rw-, user:65534:r--, group::r--, mask::r--, other::---
    for entry in ((1, 6, -1), (2, 4, NOBODY), (4, 4, -1), (16, 4, -1), (32, 0, -1)):
        acl += struct.pack("<HHi", *entry)
    try:
        os.setxattr(source, "user.owner", b"us")
        os.setxattr(source, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("this file system has no extended attributes")
    before = {name: os.getxattr(source, name) for name in os.listxattr(source)}
    mode = source.stat().st_mode
    assert heal("--apply", env).results == ["healed"]
    assert {name: os.getxattr(source, name) for name in os.listxattr(source)} == before
    assert source.stat().st_mode == mode


@root_only
def test_a_full_disk_changes_nothing(copy, tmp_path):
    original = copy("rattler")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m", "none", disk], check=True)
    try:
        env = disk / "env"
        shutil.copytree(
            original,
            env,
            symlinks=True,
            ignore=shutil.ignore_patterns("*.so*", "tests", "numpy.libs"),
        )
        before = tmp_path / "before"
        shutil.copytree(env, before, symlinks=True)
        fill(disk / "filler")
        run = heal("--apply", env)
        assert run.results == ["failed"] and "No space" in run.reasons, run
        assert installed.differences(before, env) == ""
        (disk / "filler").unlink()
        assert heal("--apply", env).results == ["healed"]
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(path):
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"x" * 4096)
