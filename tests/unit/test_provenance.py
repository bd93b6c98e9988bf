"""Provenance by the texts of in-toto, SLSA and CEP 27, read by a reader that is not ours."""

import base64
import hashlib
import json
import re
import types

import pytest
import yaml
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement

from numpy_feedstock.publishing import provenance, signing
from numpy_feedstock.publishing.provenance import Subject

SUBJECT = Subject("numpy-2.3.5-mkl_py311h0000001_100.conda", "a" * 64)
URI = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/]+.*")


@pytest.fixture
def unpacked(tmp_path):
    """An unpacked package with a recipe that has a source, a list of sources and a patch."""
    rendered = {
        "recipe": {
            "source": [
                {"url": "https://me:word@host/numpy.tar.gz", "sha256": "b" * 64},
                {"url": ["https://first/x", "https://second/x"], "sha256": "c" * 64},
                {"path": "../tests"},
            ]
        }
    }
    texts = {
        "info/index.json": json.dumps({"name": "numpy", "version": "2.3.5", "depends": []}),
        "info/recipe/rendered_recipe.yaml": json.dumps(rendered),
        "info/recipe/variant_config.yaml": "blas_impl: mkl\nmirror: https://me:word@host/t/tok/x\n",
        "info/recipe/patches/0001.patch": "a patch",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return types.SimpleNamespace(
        index=json.loads(texts["info/index.json"]),
        files={name: tmp_path / name for name in texts},
        is_twin=False,
        yaml=lambda name: yaml.safe_load(texts[name]),
    )


@pytest.fixture
def record():
    return types.SimpleNamespace(
        channels=["https://me:word@host/c", "file:///home/me/bootstrap-3.11/"],
        commit="4f0c2d1",
        tests={"imports": True},
        numpy_tests={"passed": 3},
        label="fast",
        installed={"build: gcc-14-0.conda": "d" * 64},
    )


@pytest.fixture
def statement(unpacked, record):
    return provenance.build_statement(SUBJECT, unpacked, record, ["red tests: f2py"])


def read(statement):
    """The statement as in-toto's own reader has it; an unknown field is an error there."""
    parsed = json_format.ParseDict(statement, statement_pb2.Statement())
    found = Statement.copy_from_pb(parsed)
    found.validate()
    return found


def test_in_totos_reader_takes_the_statement(statement):
    found = read(statement)
    assert found.pb.predicate_type == "https://slsa.dev/provenance/v1"
    assert [subject.name for subject in found.pb.subject] == [SUBJECT.filename]


def test_slsas_reader_takes_the_predicate(statement):
    found = json_format.ParseDict(statement["predicate"], provenance_pb2.Provenance())
    assert URI.fullmatch(found.run_details.builder.id)
    assert URI.fullmatch(found.build_definition.build_type)
    assert found.build_definition.external_parameters["package"] == "numpy"
    descriptors = [*found.build_definition.resolved_dependencies, *found.run_details.byproducts]
    assert len(descriptors) == 7
    for each in descriptors:
        ResourceDescriptor.copy_from_pb(each).validate()
        assert each.uri or each.digest or each.content


def test_a_byproduct_has_its_content_and_its_digest(statement, unpacked):
    for each in statement["predicate"]["runDetails"]["byproducts"]:
        content = base64.b64decode(each["content"])
        assert each["digest"] == {"sha256": hashlib.sha256(content).hexdigest()}
    facts = provenance.facts(statement)
    assert (facts.objections, facts.index) == (["red tests: f2py"], unpacked.index)


def test_a_statement_without_a_record_is_valid_too(unpacked):
    read(provenance.build_statement(SUBJECT, unpacked, None, []))


def test_no_user_no_token_and_no_local_path_is_in_the_statement(statement):
    text = json.dumps(statement)
    assert not re.search("word|/t/tok|/home|file:", text)
    uris = [
        each.get("uri")
        for each in statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    ]
    assert uris[:2] == ["https://host/numpy.tar.gz", "https://first/x"]


def test_the_publish_attestation_is_what_cep_27_says():
    statement = provenance.publish_statement(SUBJECT, "https://me:word@conda.example.com/fixed/")
    read(statement)
    assert statement == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": SUBJECT.filename, "digest": {"sha256": SUBJECT.sha256}}],
        "predicateType": "https://schemas.conda.org/attestations-publish-1.schema.json",
        "predicate": {"targetChannel": "https://conda.example.com/fixed"},
    }


def test_a_signed_statement_is_read_back_and_a_changed_one_is_not(statement, tmp_path, monkeypatch):
    signing.make(tmp_path / "key.pem")
    monkeypatch.setenv(signing.VARIABLE, str(tmp_path / "key.pem"))
    keys = [signing.own_public_key()]
    signed = provenance.sign(statement, signing.signer())
    assert provenance.verify(signed, keys, SUBJECT) == statement
    envelope = json.loads(signed)
    payload = base64.b64decode(envelope["payload"]).replace(b"fast", b"full")
    envelope["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(provenance.NotTrusted, match="not signed by a key that is trusted"):
        provenance.verify(json.dumps(envelope).encode(), keys, SUBJECT)
