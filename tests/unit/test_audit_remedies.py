"""What the audit prints to do: made for the tool that installed the numpy, and pasted as it is."""

import json
import os
import shlex
import subprocess

import pytest

import audit_numpy
from helpers import trees
from helpers.trees import SITE_PACKAGES

NEWER = "'numpy>=2.4.5'"


@pytest.fixture
def remedies(rows):
    """The remedies of the only numpy in a folder."""

    def run(folder, *options):
        (row,) = [row for row in rows(*options, folder)[0] if row["verdict"] == "AFFECTED"]
        return row["remedies"]

    return run


def heal(prefix):
    return f"python3 heal_numpy.py --apply {prefix}"


# --- conda and pixi


def test_conda_gets_our_build_beside_the_channel_that_numpy_came_from(remedies, conda, tmp_path):
    prefix = conda(tmp_path / "app")
    assert remedies(tmp_path, "--channel", "https://conda.example.com/fixed") == [
        heal(prefix),
        f"conda install -p {prefix} -c https://conda.example.com/fixed "
        "-c https://conda.example.com/forge 'numpy=2.3.5=mkl*_1*'",
    ]


@pytest.mark.parametrize(
    "channel",
    [
        "https://repo.example.com/pkgs/main/linux-64",
        "https://mirror.example.com/anaconda/pkgs/main",
        "pkgs/main",
        "defaults",
    ],
)
def test_anacondas_channel_has_no_libblas_so_conda_forge_is_added_and_said(
    rows, conda, tmp_path, channel
):
    prefix = conda(tmp_path / "app", channel=channel)
    ((row,), _) = rows(tmp_path)
    assert row["remedies"] == [
        heal(prefix),
        f"conda install -p {prefix} -c YOUR_CHANNEL -c conda-forge 'numpy=2.3.5=mkl*_1*'",
    ]
    assert "numpy-base" in row["remedy_note"] and "mkl_fft" in row["remedy_note"]


def test_what_conda_pack_made_is_packed_again(remedies, conda, tmp_path):
    prefix = conda(tmp_path / "app")
    (prefix / "bin").mkdir()
    (prefix / "bin" / "conda-unpack").touch()
    assert remedies(tmp_path)[0] == heal(prefix)
    assert remedies(tmp_path)[1].endswith("'numpy=2.3.5=mkl*_1*' && conda pack -p SOURCE")


@pytest.mark.parametrize("python", ["python3.13t", "python3.14t"])
def test_a_free_threaded_python_gets_a_newer_numpy(remedies, numpy, tmp_path, python):
    numpy(tmp_path / "app" / "lib" / python / "site-packages")
    meta = tmp_path / "app" / "conda-meta"
    meta.mkdir()
    (meta / "numpy-2.3.5-py313h1_0.json").write_text('{"channel": "forge"}')
    assert remedies(tmp_path)[-1] == f"conda install -p {tmp_path}/app -c forge {NEWER}"


def test_a_pixi_workspace_is_the_one_that_the_environment_names(remedies, conda, tmp_path):
    """Detached environments lie far from their workspace."""
    prefix = conda(tmp_path / "cache" / "detached" / "app-123" / "envs" / "default")
    manifest = {"manifest_path": "/srv/my work/pixi.toml", "environment_name": "default"}
    (prefix / "conda-meta" / "pixi").write_text(json.dumps(manifest))
    assert remedies(tmp_path)[1] == (
        "cd '/srv/my work' && pixi workspace channel add --prepend YOUR_CHANNEL "
        "&& pixi add 'numpy=2.3.5=mkl*_1*'"
    )


def test_pixi_global_and_a_numpy_that_pixi_took_from_pypi(remedies, conda, numpy, tmp_path):
    conda(tmp_path / "g" / ".pixi" / "envs" / "ipython")
    (tmp_path / "g" / ".pixi" / "manifests").mkdir()
    (tmp_path / "g" / ".pixi" / "manifests" / "pixi-global.toml").touch()
    assert remedies(tmp_path / "g")[1] == f"pixi global add -e ipython {NEWER}"
    prefix = tmp_path / "w" / ".pixi" / "envs" / "default"
    numpy(prefix / SITE_PACKAGES)
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta" / "pixi").write_text(f'{{"manifest_path": "{tmp_path}/w/pixi.toml"}}')
    assert remedies(tmp_path / "w")[1] == f"cd {tmp_path}/w && pixi add --pypi {NEWER}"


# --- pip's kind


@pytest.mark.parametrize(
    ("options", "file", "remedy"),
    [
        ({"pip": True}, None, "{0}/bin/python3 -m pip install {1}"),
        ({}, None, "python3 -m pip --python {0}/bin/python3 install {1}"),
        ({"settings": "uv = 0.9\n"}, None, "uv pip install --python {0}/bin/python3 {1}"),
        ({"installer": "uv", "pip": True}, None, "uv pip install --python {0}/bin/python3 {1}"),
        ({"installer": "uv"}, "../uv.lock", "uv add --project {2} {1}"),
        ({"installer": "Poetry 2.1"}, "../pyproject.toml", "cd {2} && poetry add {1}"),
        ({"installer": "poetry 1.8.3"}, None, "cd PROJECT && poetry add {1}"),
        ({"pip": True}, "pipx_metadata.json", "pipx runpip app install {1}"),
        ({"installer": "uv"}, "uv-receipt.toml", "uv tool install --with {1} app"),
        (
            {"pip": True},
            "lib/python3.11/EXTERNALLY-MANAGED",
            "{0}/bin/python3 -m pip install --break-system-packages {1}",
        ),
    ],
)
def test_a_venv_gets_the_command_of_its_tool(remedies, numpy, tmp_path, options, file, remedy):
    prefix = trees.make_venv(tmp_path / "project" / "app", numpy, **options)
    if file:
        (prefix / file).touch()
    assert remedies(tmp_path) == [
        heal(prefix),
        remedy.format(prefix, NEWER, tmp_path / "project"),
    ]


def test_a_folder_gets_a_newer_numpy_by_the_python_that_it_is_for(remedies, numpy, tmp_path):
    numpy(tmp_path / "vendored")
    assert remedies(tmp_path) == [
        heal(tmp_path / "vendored"),
        f"python3.11 -m pip install --upgrade --target {tmp_path}/vendored {NEWER}",
    ]


def test_a_users_own_packages_are_upgraded_there(remedies, numpy, tmp_path):
    numpy(tmp_path / ".local" / SITE_PACKAGES)
    assert remedies(tmp_path)[1] == f"python3.11 -m pip install --user {NEWER}"


def test_a_system_pythons_numpy_is_mended_by_its_own_python(remedies, numpy, tmp_path):
    usr = tmp_path / "usr"
    numpy(usr / "lib64" / "python3.12" / "site-packages")
    (usr / "lib64" / "python3.12" / "site-packages" / "pip").mkdir()
    (usr / "bin").mkdir()
    (usr / "bin" / "python3").touch()
    # the python3 in bin is another version's
    assert remedies(tmp_path)[1].startswith("python3.12 -m pip install --upgrade --target")
    (usr / "bin" / "python3.12").touch()
    assert remedies(tmp_path)[1] == f"{usr}/bin/python3.12 -m pip install {NEWER}"


@pytest.mark.parametrize(
    ("site", "installer", "remedy"),
    [
        ("lib64/python3.12/site-packages", "rpm", "rpm -qf"),
        ("lib/python3/dist-packages", "debian", "dpkg -S"),
        ("lib/python3/dist-packages", None, "dpkg -S"),
    ],
)
def test_a_distributions_numpy_is_left_to_its_package_manager(
    rows, numpy, tmp_path, site, installer, remedy
):
    site = tmp_path / "usr" / site
    numpy(site)
    if installer:
        (site / "numpy-2.3.5.dist-info" / "INSTALLER").write_text(installer)
    ((row,), _) = rows(tmp_path)
    assert row["remedies"] == [f"{remedy} {site}/numpy/__init__.py"]
    assert "package manager" in row["remedy_note"]


@pytest.mark.parametrize(
    ("store", "command"),
    [("nix", "nix-store --query --roots"), ("gnu", "guix gc --referrers")],
)
def test_the_store_of_nix_or_guix_is_left_alone(rows, numpy, tmp_path, store, command):
    built = tmp_path / store / "store" / "0abc-python3.11-numpy-2.3.5"
    numpy(built / trees.SITE_PACKAGES)
    profile = tmp_path / "a-profile" / trees.SITE_PACKAGES
    profile.mkdir(parents=True)
    (profile / "numpy").symlink_to(built / trees.SITE_PACKAGES / "numpy")
    numpys, _ = rows(tmp_path)
    assert [row["installer"] for row in numpys] == ["store", "store"]
    for row in numpys:
        assert row["remedies"] == [f"{command} {built}"]
        assert "nothing may change" in row["remedy_note"]


@pytest.mark.parametrize(
    "layer",
    [
        "docker/overlay2/abc123/diff",
        "containers/storage/overlay/abc123/diff",
        "docker/vfs/dir/abc123",
        "docker/btrfs/subvolumes/abc123",
        "containers/storage/vfs/dir/abc123",
        "io.containerd.snapshotter.v1.native/snapshots/12",
    ],
)
def test_a_layer_of_an_image_is_built_again(rows, conda, tmp_path, layer):
    conda(tmp_path / layer / "opt" / "conda")
    ((row,), _) = rows(tmp_path)
    assert row["remedies"] == ["build the image again with 'numpy>=2.4.5'"]


def test_the_lower_layers_of_overlays_are_read_from_the_mounts():
    mounts = (
        "overlay /merged overlay rw,lowerdir=/a\\040b:/c/,upperdir=/u,workdir=/w 0 0\n"
        "proc /proc proc rw 0 0\n"
        "none /x overlay ro,lowerdir+=/d 0 0\n"
        "overlay /sandbox overlay rw,lowerdir=/,upperdir=/u,workdir=/w 0 0\n"
    )
    assert audit_numpy.lower_layers(mounts) == ("/a b/", "/c/", "/d/")


# --- what is printed can be pasted


@pytest.mark.parametrize(
    "name",
    ["a b", "it's", "new\nline", "é", "\udcff", 'q"$(id)`id`\\', "\x1b[2J", "*", "-n", "~", "'\n"],
)
@pytest.mark.parametrize("shell", ["bash"])
def test_a_printed_command_names_the_prefix_to_a_shell(audit, conda, tmp_path, name, shell):
    prefix = conda(tmp_path / name)
    code, printed, _ = audit(tmp_path)
    (line,) = [line for line in printed.splitlines() if line.startswith("  conda install")]
    script = f"conda() {{ printf '%s' \"$3\"; }}\n{line}"
    done = subprocess.run([shell, "-c", script], capture_output=True, check=True)
    assert (code, done.stdout) == (1, os.fsencode(prefix))


def test_a_latent_numpy_has_its_remedies_in_json_alone(audit, rows, conda, tmp_path):
    conda(tmp_path, "0_openblas", needs=trees.INTERFACE)
    ((row,), _) = rows(tmp_path)
    assert shlex.split(row["remedies"][1])[-1] == "numpy=2.3.5=openblas*_1*"
    assert "conda install" not in audit(tmp_path)[1]
