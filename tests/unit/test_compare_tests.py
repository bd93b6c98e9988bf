"""What is made of two runs of numpy's own tests."""

import pytest

from numpy_feedstock.packages import junit
from numpy_feedstock.verbs import compare_tests


@pytest.fixture
def results(tmp_path):
    def write(name, **outcomes):
        cases = ""
        for test, outcome in outcomes.items():
            inner = f"<{outcome}/>" if outcome else ""
            cases += f'<testcase classname="numpy.tests.test_a" name="{test}">{inner}</testcase>'
        path = tmp_path / name
        path.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
        return path

    return write


def test_outcomes_and_their_number(results):
    path = results("results.xml", a="", b="failure", c="error", d="skipped")
    found = junit.outcomes(path)
    assert found["numpy.tests.test_a::c"] == "failed"
    assert junit.count(found) == {"passed": 1, "failed": 2, "skipped": 1}


def test_a_failure_that_the_control_shares_is_not_ours(results, monkeypatch):
    package = results(
        "numpy-2.3.5-mkl_1.numpy-tests.xml", ours="failure", machine="failure", other=""
    )
    control = results("control.xml", ours="", machine="error", other="failure")
    path = package.with_name("numpy-2.3.5-mkl_1.conda")
    monkeypatch.setattr(compare_tests, "run_on_control", lambda *args: control)
    monkeypatch.setattr(
        compare_tests, "read_record", lambda path: type("Record", (), {"label": "fast"})
    )
    row = compare_tests.compare("mkl", path, print)
    assert row.only_package == ("numpy.tests.test_a::ours",)
    assert row.both == ("numpy.tests.test_a::machine",)
    assert row.only_control == ("numpy.tests.test_a::other",)
