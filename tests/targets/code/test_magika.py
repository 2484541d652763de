"""magika: against the package's own public answers, to the last bit."""

import pytest
import torch

from bbox.code.program import Program, Programs
from bbox.errors import UsageError
from bbox.targets import load
from bbox.zoo.code_samples import load_code_samples

magika = pytest.importorskip("magika")
ODD = [
    "",
    "\n\n  int main(void) { return 0; }\n ",
    "  \n ",
    "a = 1",
    " a = 12 ",
    "é" * 4,
    "é" * 3000,
    " " * 5000 + "int main() { return 0; }",
    "x = 1\n" * 1500,
]
# A sixth of the samples: a query takes 10 ms.
ROWS = Programs.cat([load_code_samples().inputs[::6], Programs(Program(text, "python") for text in ODD)])


@pytest.fixture(scope="module")
def own():
    session = magika.Magika()
    return [session.identify_bytes(code.encode()) for code in ROWS.codes()]


def test_raw(own):
    target = load("magika")
    scores = target(ROWS)
    asked = [place for place, answer in enumerate(own) if answer.dl.label != "undefined"]
    assert 10 < len(asked) < len(ROWS)  # the others are of a few bytes, which the package leaves to a rule
    for place in asked:
        assert scores[place].max().item() == own[place].score
        assert target.class_names[scores[place].argmax()] == own[place].dl.label
    assert scores.shape == (len(ROWS), 214) and target.num_classes == 214
    torch.testing.assert_close(scores.sum(1), torch.ones(len(ROWS)))


def test_policy(own):
    target = load("magika:policy")
    assert target.access == "labels"
    assert [target.class_names[label] for label in target(ROWS)] == [str(answer.output.label) for answer in own]


def test_rows_do_not_meet():
    target = load("magika:raw")
    alone = torch.cat([target(ROWS[place : place + 1]) for place in range(4)])
    assert torch.equal(alone, target(ROWS)[:4])
    assert target(Programs([])).shape == (0, 214)


def test_named():
    raw, policy = load("magika:raw"), load("magika:policy")
    assert {"c", "java", "python"} < set(raw.class_names) & set(policy.class_names)
    assert raw.fingerprint() == load("magika").fingerprint() != policy.fingerprint()
    with pytest.raises(UsageError, match="magika:best is unknown, expected magika:raw or magika:policy"):
        load("magika:best")
    with pytest.raises(UsageError, match="takes no options"):
        load("magika:raw", options={"mode": "x"})
