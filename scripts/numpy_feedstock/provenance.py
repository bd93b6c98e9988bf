"""Provenance: what a package was made of and how it was tested, signed.

An in-toto statement (v1) with SLSA's provenance (v1) as its predicate, in a
DSSE envelope; one per package, as conda's CEP 27 has it, named after it. It
says what is needed to make the package again.
"""

import json
import os
import tempfile
from pathlib import Path

from . import files
from .errors import UsageError

ENDING = ".intoto.jsonl"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://github.com/conda/ceps/blob/main/cep-0014.md"  # a v1 recipe and its variant
KEY_VARIABLE = "FEEDSTOCK_SIGNING_KEY"


def name(filename):
    """File name of a package's provenance."""
    return filename.removesuffix(".conda") + ENDING


def statement(path, record, objections):
    """The statement about a package, a dict.

    path : of the package
    record : its Record, or None
    objections : list of str, what it was published in spite of
    """
    import importlib.metadata

    from rattler.package_streaming import extract

    with tempfile.TemporaryDirectory() as folder:
        extract(path, folder)
        index = json.loads(Path(folder, "info/index.json").read_text())
        recipe = Path(folder, "info/recipe")
        rendered = _yaml(recipe / "rendered_recipe.yaml")
        materials = [*_sources(rendered), *_files(recipe), *_packages(record)]
        parameters = {
            "package": index["name"],
            "version": index["version"],
            "variant": _yaml(recipe / "variant_config.yaml"),
        }
    tests = {"objections": objections}
    if record:
        tests |= {"tests": record.tests, "numpy_tests": record.numpy_tests, "label": record.label}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": path.name, "digest": {"sha256": files.sha256(path)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "internalParameters": {"channels": record.channels, "commit": record.commit}
                if record
                else {},
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {
                    "id": "feedstock build",
                    "version": {"py-rattler-build": importlib.metadata.version("py-rattler-build")},
                },
                "byproducts": [{"name": "tests", "annotations": tests}],
            },
        },
    }


def _yaml(path):
    import yaml

    return yaml.safe_load(path.read_text()) if path.exists() else {}


def _sources(rendered):
    """Upstream's source archives."""
    for source in rendered.get("recipe", {}).get("source", []):
        if "sha256" in source:
            yield {"uri": source["url"], "digest": {"sha256": source["sha256"]}}


def _files(recipe):
    """The patch, the script and whatever else a person wrote."""
    for file in sorted(recipe.rglob("*")) if recipe.is_dir() else ():
        if file.is_file() and file.name != "rendered_recipe.yaml":
            yield {
                "name": f"info/recipe/{file.relative_to(recipe)}",
                "digest": {"sha256": files.sha256(file)},
            }


def _packages(record):
    """The compilers and all else that was installed to build it."""
    for package, sha256 in record.installed.items() if record else ():
        yield {"name": package, "digest": {"sha256": sha256}}


def sign(statement, key):
    """A statement as one line of JSON: a signed DSSE envelope, bytes."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(json.dumps(statement, sort_keys=True).encode(), PAYLOAD_TYPE, {})
    envelope.sign(key)
    return json.dumps(envelope.to_dict()).encode() + b"\n"


def check(data, keys, path_name, sha256):
    """What is wrong with a package's provenance, or "".

    data : bytes, the envelope
    keys : public keys that are trusted, from ``public_key``
    path_name, sha256 : of the package as it is
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError

    try:
        envelope = Envelope.from_dict(json.loads(data))
        envelope.verify(keys, 1)
        (subject,) = json.loads(envelope.payload)["subject"]
        if envelope.payload_type != PAYLOAD_TYPE:
            return f"signed, but as {envelope.payload_type}"
    except VerificationError:
        return "not signed by a key that is trusted"
    except (
        Exception
    ) as error:  # anybody's bytes: whatever they do to the parsers, they are no provenance
        return f"no provenance: {error}"
    if (subject["name"], subject["digest"].get("sha256")) != (path_name, sha256):
        return f"of another file: {subject['name']} sha256 {subject['digest'].get('sha256')}"
    return ""


def key_path():
    """Where the signing key is: what FEEDSTOCK_SIGNING_KEY says, else in the user's configuration."""
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(
        os.environ.get(KEY_VARIABLE) or configuration / "numpy-feedstock" / "signing-key.pem"
    )


def signing_key(report):
    """The private key, made at the first use. Raises UsageError when it is no ed25519 key."""
    from cryptography.hazmat.primitives import serialization
    from securesystemslib.signer import CryptoSigner, SSlibKey

    path = key_path()
    if not path.exists():
        _make_key(path)
        report(f"made a signing key: {path}; hand out {path}.pub to those who check")
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), None)
        return CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"no signing key: {path}",
            expected="a PEM file with a private key without a passphrase",
            found=error,
        ) from None


def _make_key(path):
    from cryptography.hazmat.primitives import serialization
    from securesystemslib.signer import CryptoSigner

    made = CryptoSigner.generate_ed25519()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # its owner's alone, from the first byte; whole, and another's is not replaced
        with tempfile.NamedTemporaryFile(dir=path.parent) as stream:
            stream.write(made.private_bytes)
            stream.flush()
            os.link(stream.name, path)
        public = serialization.load_pem_private_key(made.private_bytes, None).public_key()
        encoding, subject = (
            serialization.Encoding.PEM,
            serialization.PublicFormat.SubjectPublicKeyInfo,
        )
        Path(f"{path}.pub").write_bytes(public.public_bytes(encoding, subject))
    except FileExistsError:
        pass
    except OSError as error:
        remedy = f"name a key with {KEY_VARIABLE}"
        raise UsageError(
            f"a signing key cannot be made: {path}", found=error.strerror, remedy=remedy
        ) from None


def public_key(path):
    """A public key that is trusted, from a PEM file. Raises UsageError when it is none."""
    from cryptography.hazmat.primitives import serialization
    from securesystemslib.signer import SSlibKey

    try:
        return SSlibKey.from_crypto(serialization.load_pem_public_key(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise UsageError(f"no public key: {path}", expected="a PEM file", found=error) from None
