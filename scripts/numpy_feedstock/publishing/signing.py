"""Keys: the private key that provenance is signed with, and public keys that are trusted."""

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from securesystemslib.exceptions import Error as SecurelibError
from securesystemslib.signer import CryptoSigner, SSlibKey

from .. import files
from ..errors import FeedstockError, UsageError

VARIABLE = "FEEDSTOCK_SIGNING_KEY"
MIN_RSA_BITS = 2048
MAKE_KEY = f"feedstock make-key makes one; {VARIABLE} names another"

# the libraries raise these for bytes that are not a key they know
_KEY_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, SecurelibError)


def default_path() -> Path:
    """Return where `make-key` puts a key: in the user's configuration. Raises UsageError."""
    configured = os.environ.get("XDG_CONFIG_HOME")
    if configured:
        return Path(configured) / "numpy-feedstock" / "signing-key.pem"
    try:
        return Path.home() / ".config" / "numpy-feedstock" / "signing-key.pem"
    except RuntimeError:
        raise UsageError(
            "this user has no home folder to look for a signing key in",
            remedy=f"set {VARIABLE} to the path of a key, or set HOME",
        ) from None


def key_path() -> Path:
    """Return the path of the signing key: from FEEDSTOCK_SIGNING_KEY, or the default.

    Raises UsageError when the variable holds no path. Its value is never shown: it may be the key.
    """
    value = os.environ.get(VARIABLE, "")
    if not value:
        return default_path()
    found = _fault_of_path(value)
    if found:
        raise UsageError(
            f"{VARIABLE} does not name a file",
            expected="the path of a PEM file",
            found=found,
            remedy="correct it; feedstock make-key FILE makes a key",
        )
    return Path(value)


def _fault_of_path(value: str) -> str:
    if "-----BEGIN" in value or not value.isprintable():
        return "text that is not a path; it may be a key itself"
    try:
        mode = os.stat(value).st_mode
    except (OSError, ValueError):
        return "no file of that name"
    return "" if stat.S_ISREG(mode) else "something that is not a file"


def signer() -> CryptoSigner:
    """Return a signer that uses the private key.

    Raises UsageError when there is no key, when others can read it, or when it is too weak.
    """
    path = key_path()
    if not path.exists():
        raise UsageError(f"there is no signing key: {path}", remedy=MAKE_KEY)
    private = _private_key(path)
    try:
        return CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))
    except _KEY_ERRORS as error:
        raise _unusable(path, error) from None


def _private_key(path: Path) -> Any:
    try:
        with open(path, "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read()
    except OSError as error:
        raise UsageError(f"the signing key cannot be read: {path}", found=error.strerror) from None
    if mode & 0o077:
        raise UsageError(
            f"others can read or change the signing key: {path}",
            expected="mode 0600",
            found=f"mode {stat.S_IMODE(mode):04o}",
            remedy=f"chmod 600 {path}; if others may have read it, make another key",
        )
    try:
        private = serialization.load_pem_private_key(content, None)
    except _KEY_ERRORS as error:
        raise _unusable(path, error) from None
    _check_size(private, path)
    return private


def _unusable(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"not a usable signing key: {path}",
        expected="a PEM file with an ed25519, ECDSA or RSA key and no passphrase",
        found=type(error).__name__,
        remedy="feedstock make-key FILE makes one",
    )


def _check_size(key: Any, path: Path) -> None:
    is_rsa = isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey)
    if is_rsa and key.key_size < MIN_RSA_BITS:
        raise UsageError(
            f"the RSA key is too short: {path}",
            expected=f"{MIN_RSA_BITS} bits or more",
            found=f"{key.key_size} bits",
            remedy="use another key; feedstock make-key FILE makes an ed25519 key",
        )


def public_key(path: Path) -> SSlibKey:
    """Return a public key from a PEM file. Raises UsageError when it is none."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
        _check_size(key, path)
        return SSlibKey.from_crypto(key)
    except OSError as error:
        raise UsageError(f"the public key cannot be read: {path}", found=error.strerror) from None
    except _KEY_ERRORS as error:
        raise UsageError(
            f"not a public key: {path}",
            expected="a PEM file that begins with -----BEGIN PUBLIC KEY-----",
            found=type(error).__name__,
            remedy="openssl pkey -in KEY -pubout -out KEY.pub writes one",
        ) from None


def own_public_key() -> SSlibKey:
    """Return the public half of the own signing key. Raises UsageError without one.

    It is read from the file beside the key, and derived from the key where there is no such file.
    """
    path = key_path()
    beside = public_path(path)
    if beside.exists():
        return public_key(beside)
    if path.exists():
        return signer().public_key
    raise UsageError(
        f"there is no key to check with: {beside}",
        remedy="name the publisher's public key with --trust FILE",
    )


def public_path(path: Path) -> Path:
    """Return the path of the public half of a key."""
    return path.with_name(f"{path.name}.pub")


def check_free(path: Path) -> None:
    """Check whether a key can be made at a path. Writes nothing.

    Raises UsageError when a file is there, FeedstockError when the folder cannot be written.
    """
    is_path = path.name and str(path).isprintable() and "-----BEGIN" not in str(path)
    if not is_path:
        raise UsageError("the key's file has no name that can be used")
    for each in (path, public_path(path)):
        if each.exists() or each.is_symlink():
            raise UsageError(
                f"a file is there already: {each}",
                remedy="name another file; keys are not replaced",
            )
    try:
        files.check_can_write(path.absolute().parent)
    except (OSError, ValueError) as error:
        raise _not_writable(path, error) from None


def _not_writable(path: Path, error: OSError | ValueError) -> FeedstockError:
    return FeedstockError(
        f"a signing key cannot be made: {path}",
        found=getattr(error, "strerror", error),
        remedy="name a file in a folder that can be written",
    )


def make(path: Path) -> None:
    """Make an ed25519 key and its public half. Nothing is replaced.

    Raises UsageError when a file is there already, FeedstockError when it cannot be written.
    """
    check_free(path)
    signer = CryptoSigner.generate_ed25519()
    public = serialization.load_pem_private_key(signer.private_bytes, None).public_key()
    encoded = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_new(path, signer.private_bytes, 0o600)
        _write_new(public_path(path), encoded, 0o644)
    except FileExistsError as error:
        raise UsageError(f"a file is there already: {error.filename2}") from None
    except OSError as error:
        raise _not_writable(path, error) from None


def _write_new(path: Path, content: bytes, mode: int) -> None:
    # only the owner can read the file, from its first byte; it appears whole, replaces nothing
    with tempfile.NamedTemporaryFile(dir=path.parent) as stream:
        stream.write(content)
        stream.flush()
        os.chmod(stream.name, mode)
        os.link(stream.name, path)
