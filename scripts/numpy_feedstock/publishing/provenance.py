"""Provenance: signed statements on what a package was made of, how it was tested, and where it is.

Two statements lie beside each package, each an in-toto statement (v1) in a DSSE envelope:
SLSA's provenance (v1) says what is needed to make the package again, and conda's CEP 27
says which channel it was published to.
"""

import base64
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from .. import files, redact
from ..packages import hotfix, patch
from ..packages.archive import ENDINGS, INDEX
from ..packages.record import Record
from ..packages.unpacked import Unpacked

# the endings that the file name of the package gets
ENDING = ".intoto.jsonl"
PUBLISH_ENDING = ".publish.intoto.jsonl"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
PUBLISH_PREDICATE_TYPE = "https://schemas.conda.org/attestations-publish-1.schema.json"
# SLSA's type for a build: CEP 14 describes the v1 recipe and its variant
BUILD_TYPE = "https://github.com/conda/ceps/blob/main/cep-0014.md"
BUILDER_ID = "https://github.com/numpy/numpy/issues/31284#feedstock-build"
# SLSA's type for a twin: `hotfix` applies the patch to the text of a finished package
HOTFIX_TYPE = "https://github.com/numpy/numpy/issues/31284#hotfix"
HOTFIXER_ID = "https://github.com/numpy/numpy/issues/31284#feedstock-hotfix"

Json = dict[str, Any]


class NotTrusted(Exception):
    """The bytes are no statement on this package that a trusted key signed; str() says why."""


def filename(package: str, ending: str = ENDING) -> str:
    """Return the file name of a package's statement."""
    for known in ENDINGS:
        if package.endswith(known):
            return package.removesuffix(known) + ending
    return package + ending


@dataclasses.dataclass(frozen=True)
class Subject:
    """The package that a statement is about."""

    filename: str
    sha256: str

    def to_json(self) -> list[Json]:
        return [{"name": self.filename, "digest": {"sha256": self.sha256}}]


def build_statement(
    subject: Subject, unpacked: Unpacked, record: Record | None, objections: Sequence[str]
) -> Json:
    """Return SLSA's statement on a package.

    record : what `build` wrote beside the package, or None
    objections : a line for each fault in spite of which the package is published
    """
    if unpacked.is_twin:
        return _hotfix_statement(subject, unpacked, objections)
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "package": unpacked.index["name"],
            "version": unpacked.index["version"],
            "variant": redact.values(_yaml(unpacked, "info/recipe/variant_config.yaml")),
        },
        "internalParameters": _internal_parameters(record),
        "resolvedDependencies": [
            *_sources(unpacked),
            *_recipe_files(unpacked),
            *_installed_packages(record),
        ],
    }
    builder = {
        "id": BUILDER_ID,
        "version": {"py-rattler-build": importlib.metadata.version("py-rattler-build")},
    }
    return _slsa_statement(subject, unpacked, definition, builder, _tests(record, objections))


def _internal_parameters(record: Record | None) -> Json:
    if not record:
        return {}
    return {
        "channels": [redact.channel(each) for each in record.channels],
        "commit": record.commit,
    }


def _hotfix_statement(subject: Subject, unpacked: Unpacked, objections: Sequence[str]) -> Json:
    """Return SLSA's statement on a twin: its materials are the original and the patch."""
    origin = hotfix.origin_of(unpacked.members)
    materials = [
        {"name": origin.get("original"), "digest": {"sha256": origin.get("original_sha256")}},
        {"name": patch.TWIN_MEMBER, "digest": {"sha256": origin.get("patch_sha256")}},
    ]
    definition = {
        "buildType": HOTFIX_TYPE,
        "externalParameters": {
            "package": unpacked.index["name"],
            "version": unpacked.index["version"],
        },
        "internalParameters": {},
        "resolvedDependencies": materials,
    }
    builder = {"id": HOTFIXER_ID}
    return _slsa_statement(subject, unpacked, definition, builder, _tests(None, objections))


def _slsa_statement(
    subject: Subject, unpacked: Unpacked, definition: Json, builder: Json, tests: Json
) -> Json:
    index = _with_content(INDEX, unpacked.files[INDEX].read_bytes())
    details = {"builder": builder, "byproducts": [tests, index]}
    predicate = {"buildDefinition": definition, "runDetails": details}
    return _statement(subject, PREDICATE_TYPE, predicate)


def publish_statement(subject: Subject, channel: str) -> Json:
    """Return CEP 27's statement that a package is published to the channel of this URL."""
    return _statement(
        subject, PUBLISH_PREDICATE_TYPE, {"targetChannel": redact.url(channel).rstrip("/")}
    )


def _statement(subject: Subject, predicate_type: str, predicate: Json) -> Json:
    return {
        "_type": STATEMENT_TYPE,
        "subject": subject.to_json(),
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def _tests(record: Record | None, objections: Sequence[str]) -> Json:
    results: Json = {"objections": list(objections)}
    if record:
        results["tests"] = record.tests
        results["numpy_tests"] = record.numpy_tests
        results["label"] = record.label
    content = json.dumps(results, sort_keys=True).encode()
    return {**_with_content("tests", content), "annotations": results}


def _with_content(name: str, content: bytes) -> Json:
    return {
        "name": name,
        "mediaType": "application/json",
        "digest": {"sha256": hashlib.sha256(content).hexdigest()},
        "content": base64.b64encode(content).decode(),
    }


def _yaml(unpacked: Unpacked, name: str) -> Any:
    return unpacked.yaml(name) or {}


def _sources(unpacked: Unpacked) -> Iterator[Json]:
    """Yield upstream's source archives. A source's URL may be a list of mirrors."""
    rendered = _yaml(unpacked, "info/recipe/rendered_recipe.yaml")
    for source in rendered.get("recipe", {}).get("source", []):
        if "sha256" not in source:
            continue
        urls = source["url"]
        first = urls if isinstance(urls, str) else urls[0]
        yield {"uri": redact.url(first), "digest": {"sha256": source["sha256"]}}


def _recipe_files(unpacked: Unpacked) -> Iterator[Json]:
    """Yield the patch, the script and whatever else a person wrote."""
    for name, path in unpacked.files.items():
        is_recipe = name.startswith("info/recipe/") and not name.endswith("rendered_recipe.yaml")
        if is_recipe and path.is_file() and not path.is_symlink():
            yield {
                "name": name,
                "digest": {"sha256": files.sha256(path)},
            }


def _installed_packages(record: Record | None) -> Iterator[Json]:
    """Yield the compilers and all else that was installed to build the package."""
    if record:
        for name, sha256 in record.installed.items():
            yield {"name": redact.urls_in(name), "digest": {"sha256": sha256}}


def sign(statement: Mapping[str, Any], signer: CryptoSigner) -> bytes:
    """Return a signed DSSE envelope of the statement as one line of JSON."""
    envelope = Envelope(json.dumps(statement, sort_keys=True).encode(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict()).encode() + b"\n"


def verify(
    data: bytes, keys: Sequence[SSlibKey], subject: Subject, predicate_type: str = PREDICATE_TYPE
) -> Json:
    """Return the statement in an envelope, if a trusted key signed it on this package.

    Raises NotTrusted with the reason.
    """
    statement = _signed_statement(data, keys)
    expected = {"_type": STATEMENT_TYPE, "predicateType": predicate_type}
    for key, value in expected.items():
        if statement.get(key) != value:
            raise NotTrusted(f"signed, but its {key} is {statement.get(key)!r}")
    if statement.get("subject") != subject.to_json():
        raise NotTrusted(f"of another file: {_subject_of(statement)}")
    return statement


def _signed_statement(data: bytes, keys: Sequence[SSlibKey]) -> Json:
    try:
        envelope = Envelope.from_dict(json.loads(data))
        envelope.verify(list(keys), 1)
        statement = json.loads(envelope.payload)
    except VerificationError:
        raise NotTrusted("not signed by a key that is trusted") from None
    # anybody may have written the bytes, and they may raise any error in the parsers
    except Exception as error:
        raise NotTrusted(f"not a signed statement: {type(error).__name__}") from None
    if envelope.payload_type != PAYLOAD_TYPE or not isinstance(statement, dict):
        raise NotTrusted(f"signed, but as {envelope.payload_type!r}")
    return statement


def _subject_of(statement: Json) -> str:
    try:
        (subject,) = statement["subject"]
        return f"{subject['name']} sha256 {subject['digest'].get('sha256')}"
    except (KeyError, TypeError, ValueError, AttributeError):
        return "its subject cannot be read"


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts of a trusted statement that a check of the channel needs."""

    objections: list[str]
    index: Json  # the package's own index.json


def facts(statement: Json) -> Facts:
    """Return the facts of a trusted SLSA statement. Raises NotTrusted when they are missing."""
    try:
        byproducts = {
            each["name"]: json.loads(base64.b64decode(each["content"]))
            for each in statement["predicate"]["runDetails"]["byproducts"]
        }
        return Facts(list(byproducts["tests"]["objections"]), dict(byproducts[INDEX]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotTrusted(f"signed, but without what a check needs: {error}") from None


def read_unsigned(path: Path) -> Json:
    """Return the statement in an envelope, and ignore its signature. For people and tests."""
    payload = Envelope.from_dict(json.loads(path.read_bytes())).payload
    return dict(json.loads(payload))
