"""``bbox baseline`` and ``bbox check``: exit codes, tables, files for CI systems, and what is refused in one line."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bbox.results.check_text import HEADS
from tests.cli.conftest import Ended
from tests.results import weaker
from tests.results.toy_project import Project

FELL, USAGE, UNREACHABLE = 1, 2, 3
ATTACK = ("--attack", "cgba", "--budget", "60", "--limit", "32", "--epsilon", "1.5")
FAST = ("--max-batch", "128", "--threads", "1")
MODEL = ("--target", "torch:models_here:model", "--set")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline of the weaker model at factor 1, made once."""
    from bbox import data, targets
    from bbox.results.baseline import write_baseline
    from bbox.results.baseline_runs import make_baseline
    from bbox.results.records import Config

    path = tmp_path_factory.mktemp("kept")
    target = targets.wrap(weaker.model(), name="torch:models_here:model")
    config = Config(budget=60, limit=32, epsilons=(1.5,), target=target.name, target_options={"factor": "1.0"})
    found = make_baseline(("cgba",), config, path / "runs", target=target, data=data.load("zoo:digits"))
    write_baseline(path / "robustness.json", found)
    return path / "robustness.json"


@pytest.fixture
def here(kept: Path, tmp_path: Path, bbox: Callable[..., Ended]) -> Callable[..., Ended]:
    """The command line, in a folder with the model's module and the baseline."""
    shutil.copy(weaker.__file__, tmp_path / "models_here.py")
    shutil.copy(kept, tmp_path / "robustness.json")
    return bbox


def test_a_baseline_is_made_and_holds(bbox: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    ended = bbox("baseline", *ATTACK, "--attack", "square:p-init=0.3", *FAST, "--runs", "runs/b", "--json")
    assert ended.code == 0, ended.err
    made = json.loads(ended.out)
    assert made == json.loads(Path("robustness.json").read_text())
    assert made["command"].startswith("bbox baseline --attack cgba")
    assert "a check would show a fall of" in ended.err and "baseline: robustness.json   runs: runs/b" in ended.err
    assert [attack["name"] for attack in made["attacks"]] == ["cgba", "square:p-init=0.3"]

    again = bbox("check", "--baseline", "robustness.json", *FAST, "--out", "c", "--json")
    assert again.code == 0, again.err
    found = json.loads(again.out)
    assert found.pop("run") == "c" and found == json.loads(Path("c/check.json").read_text())
    assert found["holds"] and found["same_target"] and len(found["figures"]) == 4
    assert "holds: zoo:digits, which has not changed, against robustness.json on 32 examples" in again.err
    assert "[x1.000, x1.000]" in again.err, "the table shows brackets"

    few = (
        "--attack",
        "foolbox:HopSkipJumpAttack",
        "--attack",
        "average:cgba:repeats=2",
        "--budget",
        "30",
        "--limit",
        "3",
    )
    blind = bbox("baseline", *few, *FAST, "--out", "few.json")
    assert blind.code == 0, blind.err
    assert "too few examples: of 9 of 9 figures no fall would be seen" in blind.err

    finished = bbox("baseline", "--from-run", "runs/b/cgba", "--out", "two.json")
    assert finished.code == 0 and "two.json" in finished.err
    assert bbox("check", "--baseline", "two.json", *FAST, "--quiet").code == 0
    taken = bbox("baseline", *ATTACK)
    assert taken.code == USAGE and "--update" in taken.err


def test_a_weaker_model_ends_with_1_and_tells_ci_systems(here: Callable[..., Ended]) -> None:
    Path("summary.md").write_text("# before\n")
    files = ("--junit", "check.xml", "--markdown", "summary.md")
    ended = here("check", "--baseline", "robustness.json", *MODEL, "factor=1.3", *FAST, "--out", "c", *files, "--json")
    assert ended.code == FELL, ended.err
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith("bbox: fell by more than the tolerance: cgba: robust accuracy at 60 queries, epsilon 1.5")
    found = json.loads(ended.out)
    robust = found["figures"][1]
    assert robust["fell"] and robust["fallen"]
    for example in robust["fallen"]:
        assert Path(example["file"]).is_file() and example["file"] in ended.err

    suites = ElementTree.parse("check.xml").getroot()
    (suite,) = suites
    assert suite.attrib | {"tests": "3", "failures": "2"} == suite.attrib == {**suites.attrib, **suite.attrib}
    cases = {case.attrib["name"]: case for case in suite}
    assert len(cases) == 3 and cases["clean accuracy"].find("failure") is None
    failure = cases["cgba: robust accuracy at 60 queries, epsilon 1.5"].find("failure")
    assert failure is not None and robust["fallen"][0]["file"] in (failure.text or "")
    assert "p (Holm)" in failure.attrib["message"]

    page = Path("summary.md").read_text()
    assert page.startswith("# before\n## bbox check: 2 of 3 figures fell: torch:models\\_here:model")
    table = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(table) == 5 and all(line.replace("\\|", "").count("|") == len(HEADS) + 1 for line in table)

    assert "\n\ntolerance 0.0% of accuracy" in page, "a paragraph of its own"
    full = here("check", "--baseline", "robustness.json", *MODEL, "factor=1.3", *FAST, "--out", "d", "--markdown",
                "/dev/full")  # fmt: skip
    assert "cgba: median l2 at 60 queries: " in full.err, "what was found is printed before it is written"
    assert full.err.strip().splitlines()[-1].startswith("bbox: cannot write /dev/full: No space left on device")

    known = here("check", "--baseline", "robustness.json", *MODEL, "factor=1.3", *FAST, "--tolerance", "0.9",
                 "--distance-tolerance", "0.5", "--quiet")  # fmt: skip
    assert known.code == 0, "a fall that the user tolerates"


def test_an_update_takes_the_new_model_as_it_is(here: Callable[..., Ended]) -> None:
    first = Path("robustness.json").read_text()
    ended = here("check", "--baseline", "robustness.json", *MODEL, "factor=1.3", *FAST, "--out", "c", "--update")
    assert ended.code == 0 and "robustness.json is rewritten" in ended.err, ended.err
    renewed = json.loads(Path("robustness.json").read_text())
    assert renewed["target"]["options"] == {"factor": "1.3"} and renewed != json.loads(first)
    assert json.loads(Path("c/baseline.json").read_text()) == json.loads(first), "the check keeps what it was held to"
    assert here("check", "--baseline", "robustness.json", *FAST, "--quiet").code == 0, "its own target and options"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "name a baseline"),
        (("--baseline", "none.json"), "none.json: no such file; make one with bbox baseline --out none.json"),
        (("--baseline", "broken.json"), "broken.json is no baseline"),
        (("--baseline", "robustness.json", "--tolerance", "1.5"), "tolerance is 1.5"),
        (("--baseline", "robustness.json", "--distance-tolerance", "-1"), "distance-tolerance is -1"),
        (("--baseline", "robustness.json", "--alpha", "0"), "alpha is 0"),
        (("--baseline", "robustness.json", "--threads", "0"), "threads is 0"),
        (("--baseline", "robustness.json", "--target", "zoo:digit"), "did you mean 'digits'"),
        (("--baseline", "robustness.json", "--data", "zoo:shifted-digits-nope"), "zoo"),
        (("--baseline", "robustness.json", "--junit", "no/where.xml"), "there is no folder no"),
        (("--baseline", "robustness.json", "--markdown", ".."), "--markdown .. is a folder, expected a file"),
        (("--baseline", "robustness.json", "--set", "factor"), "KEY=VALUE"),
        (("--baseline", "robustness.json", "--budget", "5"), "No such option"),
        (("--resume", "c", "--seed", "1"), "--seed cannot change on --resume"),
    ],
)
def test_bad_checks_cost_one_line(words: tuple[str, ...], told: str, here: Callable[..., Ended]) -> None:
    Path("broken.json").write_text('{"kind": "base')
    ended = here("check", *words)
    assert ended.code == USAGE, ended.err
    assert told in ended.err and len(ended.err.strip().splitlines()) == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "name at least one attack"),
        (("--attack", "cgbo"), "cgba"),
        (("--attack", "cgba", "--attack", "cgba"), "given twice"),
        (("--attack", "square:epsilon=1"), "--epsilon"),
        (("--attack", "cgba", "--tolerance", "2"), "tolerance is 2"),
        (("--attack", "cgba", "--out", "no/where.json"), "there is no folder no"),
        (("--from-run", "r", "--budget", "5"), "--budget is for new runs"),
        (("--resume", "r", "--attack", "cgba"), "--attack cannot change on --resume"),
        (("--attack", "smi"), "asks no target"),
    ],
)
def test_bad_baselines_cost_one_line(words: tuple[str, ...], told: str, bbox: Callable[..., Ended]) -> None:
    ended = bbox("baseline", *words)
    assert ended.code == USAGE, ended.err
    assert told in ended.err and len(ended.err.strip().splitlines()) == 1
    assert not Path("runs").exists() and not Path("robustness.json").exists()


def test_a_target_that_dies_ends_with_3_and_the_check_goes_on(bbox: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "models_here.py").write_text(
        "from pathlib import Path\nfrom bbox.zoo.digits import load_digits_model\nnet = load_digits_model()\n"
        "def classify(rows):\n    left = int(Path('left').read_text()) - 1\n    Path('left').write_text(str(left))\n"
        "    if left < 0:\n        raise ConnectionError('connection refused')\n    return net(rows)\n"
    )
    Path("left").write_text("9999")
    target = ("--target", "python:models_here:classify", "--data", "zoo:digits")
    assert bbox("baseline", *ATTACK, *target, *FAST, "--quiet").code == 0
    calls = 9999 - int(Path("left").read_text())
    Path("left").write_text("8")
    ended = bbox("check", "--baseline", "robustness.json", *FAST, "--out", "c", "--quiet", "--junit", "check.xml")
    assert ended.code == UNREACHABLE, ended.err
    assert "connection refused" in ended.err and len(ended.err.strip().splitlines()) == 1
    assert not Path("c/check.json").exists() and not Path("check.xml").exists()
    Path("left").write_text("9999")
    resumed = bbox("check", "--resume", "c", *FAST, "--junit", "check.xml")
    assert resumed.code == 0, resumed.err
    assert 9999 - int(Path("left").read_text()) + 8 <= calls + 2, "one more probe, and the call that failed"
    assert ElementTree.parse("check.xml").getroot().attrib["failures"] == "0"


def test_a_check_that_is_killed_goes_on(tmp_path: Path) -> None:
    project = Project.make(tmp_path, "checked_toy", count=8)
    target = ("--target", "python:checked_toy:classify", "--data", "data.npz")
    fast = ("--max-batch", "16", "--threads", "1", "--quiet")
    asked = ("--attack", "cgba", "--budget", "80", "--epsilon", "1.0")
    code, _, err = project.run(["baseline", *asked, *target, *fast], log="baseline.log")
    assert code == 0, err
    check = ["check", "--baseline", "robustness.json", *fast, "--out", "c"]
    assert project.stop_after(120, signal.SIGINT, check, "cut.log", sleep=0.02) == 130
    resume = ["check", "--resume", "c", *fast]
    assert project.stop_after(120, signal.SIGKILL, resume, "cut.log", sleep=0.02) == -signal.SIGKILL
    code, _, err = project.run(resume, log="cut.log")
    assert code == 0, err
    found = json.loads((tmp_path / "c" / "check.json").read_text())
    assert found["holds"] and all(figure["lost"] == figure["gained"] == 0 for figure in found["figures"])
    # A kill may cost the forward that was under way, and each session asks its probe.
    assert project.logged("cut.log") <= project.logged("baseline.log") + 3 * (16 + 1)
