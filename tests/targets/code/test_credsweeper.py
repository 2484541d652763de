"""credsweeper: against the scanner's own run over files. Not among the development packages, so it may be skipped."""

import importlib.util
from pathlib import Path

import pytest
import torch

from bbox.code.program import Program, Programs
from bbox.errors import UsageError
from bbox.targets import load

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("credsweeper") is None, reason="credsweeper is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
NAMES = ("db_password", "session_key", "pwd_hash", "value", "cfg", "token")
CODE = 'def connect(host):\n    {0} = "xK9#mPq2vL8wTz4B"\n    return open_session(host, {0})\n'
ROWS = Programs(Program(CODE.format(name), "python") for name in NAMES)


def found_in_file(path, code):
    from credsweeper.app import CredSweeper
    from credsweeper.file_handler.files_provider import FilesProvider

    path.write_text(code)
    scanner = CredSweeper()
    scanner.run(FilesProvider([str(path)]))
    return max((float(c.ml_probability) for c in scanner.credential_manager.get_credentials()), default=None)


def test_agrees_with_the_scanner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the network also reads the path, and ours is program.py
    target = load("credsweeper")
    scores = target(ROWS)
    limit = torch.tensor(target.threshold, dtype=torch.float64)
    expected = [found_in_file(Path("program.py"), code) for code in ROWS.codes()]
    assert [probability is not None for probability in expected] == (scores.argmax(1) == 1).tolist()
    assert 0 < sum(probability is not None for probability in expected) < len(NAMES)
    for score, probability in zip(scores[:, 1].double(), expected, strict=True):
        if probability is not None:
            torch.testing.assert_close((score.logit() + limit.logit()).sigmoid().item(), probability, atol=1e-5, rtol=0)
    assert scores[NAMES.index("cfg"), 1] == 0  # no candidate at all
    assert target.class_names == ("missed", "found")


def test_rows_do_not_meet():
    target = load("credsweeper:high")
    assert torch.equal(torch.cat([target(ROWS[place : place + 1]) for place in range(3)]), target(ROWS)[:3])


def test_named():
    assert load("credsweeper").fingerprint() == load("credsweeper:medium").fingerprint()
    assert load("credsweeper:low").fingerprint() != load("credsweeper:medium").fingerprint()
    with pytest.raises(UsageError, match="credsweeper:max is unknown, expected credsweeper:lowest"):
        load("credsweeper:max")
