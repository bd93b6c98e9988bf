"""The patched function, taken out of the patch file and run on stubs of the platforms."""

from types import SimpleNamespace

import pytest

from helpers.numpy_init import PATCH, patched_function
from numpy_feedstock import variant

LIMITS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")


class Platform:
    """What blas_fpe_check() sees of numpy and of the machine; records what it does."""

    def __init__(self, platform, machine, environ=(), product=None):
        self.seen = []  # the environment at each matrix product
        self.touched = []  # every access to the environment
        self.answer = False  # of _blas_supports_fpe
        self.warned = []
        platform_self = self

        class Environ(dict):
            def __getattribute__(self, name):
                if not name.startswith("__"):
                    platform_self.touched.append(name)
                return super().__getattribute__(name)

            def __getitem__(self, key):
                platform_self.touched.append(key)
                return super().__getitem__(key)

        class Matrix:
            def __matmul__(self, other):
                platform_self.seen.append(
                    {name: dict.get(platform_self.environ, name) for name in LIMITS}
                )
                if product:
                    raise product

        class errstate:
            def __init__(self, **states):
                assert states == {"all": "raise"}

            def __enter__(self):
                pass

            def __exit__(self, *exc):
                pass

        self.environ = Environ(environ)
        fake_os = SimpleNamespace(environ=self.environ)
        if platform != "win32":  # which has no os.uname
            fake_os.uname = lambda: SimpleNamespace(machine=machine)
        self.namespace = {
            "sys": SimpleNamespace(platform=platform),
            "os": fake_os,
            "ones": lambda shape: Matrix(),
            "errstate": errstate,
            "warnings": SimpleNamespace(warn=lambda *args, **kwargs: self.warned.append(args[0])),
            "_core": SimpleNamespace(
                _multiarray_umath=SimpleNamespace(_blas_supports_fpe=lambda value: self.answer)
            ),
            "UserWarning": UserWarning,
        }

    def check(self):
        exec(patched_function(), self.namespace)
        return self.namespace["blas_fpe_check"]()


@pytest.mark.parametrize(
    ("platform", "machine"),
    [
        ("linux", "x86_64"),
        ("linux", "aarch64"),
        ("linux", "arm64"),
        ("darwin", "x86_64"),
        ("win32", "AMD64"),
        ("win32", "ARM64"),
    ],
)
def test_elsewhere_no_blas_is_called_and_the_environment_is_neither_read_nor_written(
    platform, machine
):
    stub = Platform(platform, machine, {"MKL_NUM_THREADS": "7"})
    stub.check()
    assert stub.seen == []
    assert stub.touched == []
    assert stub.environ == {"MKL_NUM_THREADS": "7"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"MKL_NUM_THREADS": "7"},
        {"OMP_NUM_THREADS": ""},
        {"MKL_NUM_THREADS": "8", "OMP_NUM_THREADS": "4"},
    ],
)
@pytest.mark.parametrize(
    "product", [None, FloatingPointError(), ZeroDivisionError(), KeyboardInterrupt()]
)
def test_on_apple_arm64_it_runs_on_one_thread_and_puts_the_environment_back(environ, product):
    stub = Platform("darwin", "arm64", environ, product)
    try:
        stub.check()
    except BaseException as error:
        assert error is product and not isinstance(error, FloatingPointError)
    else:
        assert product is None or isinstance(product, FloatingPointError)
    assert stub.seen == [dict.fromkeys(LIMITS, "1")]
    assert stub.environ == environ


def test_on_apple_arm64_the_warning_still_comes():
    stub = Platform("darwin", "arm64", product=FloatingPointError())
    stub.answer = True
    stub.check()
    assert len(stub.warned) == 1 and "Spurious warnings" in stub.warned[0]


def test_it_touches_one_file_and_says_why_and_until_when():
    text = PATCH.read_text()
    header, diff = text.split("\n---\n", 1)
    assert [line for line in diff.splitlines() if line.startswith("+++ ")] == [
        "+++ b/numpy/__init__.py"
    ]
    assert header.startswith("From ") and "\nSubject: [PATCH] " in header
    for field in ("Symptom: ", "Cause: ", "Upstream: ", "Applies-to: ", "Drop-when: "):
        assert f"\n{field}" in header
    assert all(release in header for release in variant.known_releases())
