"""What a study says of its report and its metric is refused before anything runs, not when everything has."""

import re
from pathlib import Path

import pytest
from conftest import Write
from test_study_spec import GOOD, study

from tlkit.study import spec_file
from tlkit.study.spec_file import read_study


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    return spec_file.refusal(path, read_study(path)[1])


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("{answer: nope}", "report.answer: expected a factor, scientific or nuisance, got 'nope'"),
        ("{answer: protokol}", "did you mean 'protocol'"),
        ("{answer: [protocol]}", "report.answer: expected a factor, scientific or nuisance, got ['protocol']"),
        ("{answer: seed_everything}", "valid: protocol, model.network.width, model.optimizer.lr"),
        ("{pairs: 3}", "report.pairs: expected a list of pairs of factors, [[a, b]], got 3"),
        ("{pairs: [a]}", "report.pairs: expected a list of pairs of factors, [[a, b]], got 'a'"),
        ("{pairs: [[protocol, widht]]}", "report.pairs: expected a factor, scientific or nuisance, got 'widht'"),
        ("{threshold: abc}", "report.threshold: expected a value of the metric, got 'abc'"),
        ("{threshold: .nan}", "report.threshold: expected a value of the metric, got nan"),
        ("{columns: [a]}", "report.columns: expected role: column, got ['a']; roles: size, over, "),
        ("{columns: {size: 3}}", "report.columns.size: expected a factor, scientific or nuisance, got 3"),
        ("{columns: {sise: protocol}}", "report.columns.sise: unknown role; did you mean 'size'? valid: size, "),
        ("{columns: {over: [protocol, x]}}", "report.columns.over: expected a factor, scientific or nuisance, got 'x'"),
        ("{columns: {seconds: secnds}}", "report.columns.seconds: expected one column of the table, got 'secnds'"),
        ("{columns: {seconds: [seconds]}}", "report.columns.seconds: expected one column of the table"),
        ("{columns: {selected_by: {column: val/loss}}}", "expected a column, or {column: NAME, mode: min or max}"),
        ("{labels: [1]}", "report.labels: expected factor: text, got [1]"),
        ("{labels: {protokol: x}}", "report.labels: expected a factor, scientific or nuisance, got 'protokol'"),
        ("{labels: {protocol: [x]}}", "report.labels.protocol: expected a text, got ['x']"),
        ("{answr: protocol}", "report.answr: unknown key; did you mean 'answer'?"),
        ("3", "report: expected a mapping with answer, pairs, threshold, columns, labels, got 3"),
    ],
)
def test_what_cannot_be_reported_is_refused(report: str, expected: str, write: Write) -> None:
    message = refusal(write().with_name("s.yaml"), f"{GOOD}report: {report}\n")
    assert "1 fault\n" in message and "line 15  report" in message
    assert expected in message


def test_what_can_be_reported_is_taken(write: Write) -> None:
    report = (
        "{answer: protocol, pairs: [[protocol, model.optimizer.lr]], threshold: 0.5, labels: {protocol: how},"
        " columns: {size: model.network.width, over: [protocol], batch_size: null, seconds: seconds_train,"
        " joules: test/joules, selected_by: {column: best_value, mode: min}}}"
    )
    found = study(write().with_name("s.yaml"), f"{GOOD}report: {report}\n")
    assert found.report["columns"]["seconds"] == "seconds_train" and found.report["threshold"] == 0.5


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("{name: [a], mode: max}", "metric.name: expected a text, got ['a']"),
        ("{name: 3, mode: max}", "metric.name: expected a text, got 3"),
        ("{name: test/accuracy, mode: max, label: [a]}", "metric.label: expected a text, got ['a']"),
        ("{name: test/accuracy}", "metric: expected {name: test/accuracy, mode: max or min, label: TEXT}"),
    ],
)
def test_a_metric_is_a_text(metric: str, expected: str, write: Write) -> None:
    assert f"line 14  {expected}" in refusal(
        write().with_name("s.yaml"), re.sub("(?m)^metric: .*", f"metric: {metric}", GOOD)
    )


@pytest.mark.parametrize(("metric", "known"), [("val/loss", True), ("seconds_train", True), ("tets/accuracy", False)])
def test_a_metric_that_no_run_may_have_is_noted(metric: str, known: bool, write: Write) -> None:
    notes = study(write().with_name("s.yaml"), GOOD.replace("test/accuracy", metric)).notes
    assert any(note.startswith(f"metric: {metric} is neither") for note in notes) != known
