"""Adversarial fine-tuning of a tiny classifier, whole: attacks, training, figures, resume."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import RobertaConfig, RobertaForSequenceClassification
from transformers.utils import logging

from bbox.cli import main
from bbox.code.program import Program, Programs
from bbox.defenses.finetune import Training, finetune
from bbox.errors import InputError, UsageError
from bbox.results import finetune_run
from bbox.results.finetune_run import FinetuneConfig, FinetuneFolder, execute_finetune, plan_finetune
from bbox.results.store import RunFolder
from bbox.targets import load
from bbox.zoo.make_code_models import make_tokenizer

logging.disable_progress_bar()

# The class hangs on one name alone, and the operator that follows it says the same.
NAMES = (("width", "height", "total", "count"), ("user", "token", "query", "reply"))
CODE = "def run({a}, {b}):\n    {c} = {a} {sign} {b}\n    return {c}\n"


def _programs(count: int, seed: int) -> list[tuple[str, int]]:
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        label = number % 2
        a, b, c = draw.sample(NAMES[label], 3)
        rows.append((CODE.format(a=a, b=b, c=c, sign="+-"[label]), label))
    return rows


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a classifier that was trained on it: it reads the names."""
    folder = tmp_path_factory.mktemp("project")
    for name, count, seed in (("train", 32, 0), ("test", 16, 1)):
        lines = [json.dumps({"code": code, "label": label}) for code, label in _programs(count, seed)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    codes = [code for code, _ in _programs(64, 2)]
    tokenizer = make_tokenizer(codes, 330)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    shape: dict[str, Any] = {"max_position_embeddings": 130, "type_vocab_size": 1, "num_labels": 2, **size}
    RobertaForSequenceClassification(RobertaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder / "raw")
    tokenizer.save_pretrained(folder / "raw")
    raw: Any = load(f"hf-code:{folder / 'raw'}", device="cpu")
    rows = _programs(64, 2)
    programs = Programs(Program(code, "python") for code, _ in rows)
    model, _ = finetune(raw, programs, torch.tensor([label for _, label in rows]), Training(6, 5e-3, 8))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def _config(project: Path, **more: Any) -> FinetuneConfig:
    given: dict[str, Any] = {
        "test_limit": 8,
        "attack_limit": 12,
        "budget": 60,
        "epochs": 2,
        "lr": 1e-3,
        "device": "cpu",
    }
    given |= {"target_options": {"language": "python"}, "limit": 24, **more}
    return FinetuneConfig(
        f"hf-code:{project / 'model'}",
        f"code:{project / 'train.jsonl'},language=python",
        f"code:{project / 'test.jsonl'},language=python",
        **given,
    )


def _run(config: FinetuneConfig, out: Path) -> dict[str, Any]:
    plan = plan_finetune(config)
    return execute_finetune(plan, FinetuneFolder.create(out, plan.describe("")))


def _settled(results: dict[str, Any]) -> str:
    """Without times and places."""
    results = {**results, "training": {k: v for k, v in results["training"].items() if k != "seconds"}}
    results["hardened"] = {k: v for k, v in results["hardened"].items() if k != "target"}
    return json.dumps(results, sort_keys=True)


@pytest.fixture(scope="module")
def done(project: Path) -> tuple[Path, dict[str, Any]]:
    out = project / "done"
    return out, _run(_config(project), out)


def test_the_figures_are_those_of_the_runs_and_of_the_model_on_disk(
    project: Path, done: tuple[Path, dict[str, Any]]
) -> None:
    out, results = done
    assert results["original"]["clean_accuracy"] == 1.0 and results["original"]["attack_success_rate"] > 0
    trained = results["training"]
    with RunFolder.open(out / "attack-training") as run:
        found = [e for e in run.examples().values() if e.success]
        assert (
            len(run.examples()) == trained["attacked"] == 12 and max(e.queries for e in run.examples().values()) <= 60
        )
    assert trained["adversarial"] == len(found) > 0 and trained["examples"] == 24 + len(found)
    assert trained["steps"] == 2 * -(-trained["examples"] // 16)
    hardened: Any = load(f"hf-code:{out / 'model'}", options={"language": "python"}, device="cpu")
    rows = _programs(16, 1)[:8]
    answers = hardened(Programs(Program(code, "python") for code, _ in rows)).argmax(1)
    right = float((answers == torch.tensor([label for _, label in rows])).float().mean())
    assert results["hardened"]["clean_accuracy"] == right
    with RunFolder.open(out / "attack-original") as run:
        broken = [e for e in run.examples().values() if e.success]
        again = [run.path / "adversarial" / f"{e.index:06d}.py" for e in broken]
    moved = hardened(Programs(Program(path.read_text(), "python") for path in again)).argmax(1)
    assert results["transfer"]["programs"] == results["transfer"]["queries"] == len(broken)
    assert results["transfer"]["right"] == int((moved == torch.tensor([e.label for e in broken])).sum())
    assert results["original"]["robust_accuracy"] == 1 - len(broken) / 8


def test_training_changes_the_copy_alone_and_leaves_random_states_as_they_were(project: Path) -> None:
    target: Any = load(f"hf-code:{project / 'model'}", device="cpu")
    before = target.fingerprint()
    rows = _programs(8, 0)
    programs, labels = Programs(Program(code, "python") for code, _ in rows), torch.tensor([label for _, label in rows])
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = (torch.rand(1).item(), np.random.rand(), random.random())
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    one, figures = finetune(target, programs, labels, Training(2, 1e-3, 4, seed=3))
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected
    other, _ = finetune(target, programs, labels, Training(2, 1e-3, 4, seed=3))
    third, _ = finetune(target, programs, labels, Training(2, 1e-3, 4, seed=4))
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in (one, other, third, target.model)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[3])
    assert target.fingerprint() == before and figures["steps"] == 4


def test_adversarial_programs_are_trained_on_with_their_true_labels(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def note(target: Any, programs: Programs, labels: torch.Tensor, *_: Any, **__: Any) -> Any:
        given.extend((program.code, label) for program, label in zip(programs, labels.tolist(), strict=True))
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune_run, "finetune", note)
    with pytest.raises(KeyboardInterrupt):
        _run(_config(project), tmp_path / "run")
    assert given[:24] == _programs(32, 0)[:24] and len(given) > 24
    assert all(("-" in code) == bool(label) for code, label in given)


@pytest.mark.parametrize("stage", ["attack-training", "train", "attack-hardened"])
def test_interrupted_it_goes_on_to_the_same_figures(
    project: Path, done: tuple[Path, dict[str, Any]], tmp_path: Path, stage: str
) -> None:
    plan = plan_finetune(_config(project))
    folder = FinetuneFolder.create(tmp_path / "cut", plan.describe(""))

    def stop(now: str, attack: Any, steps: Any) -> None:
        if now == stage and (attack is None or attack.queries > 20):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_finetune(plan, folder, watch=stop)
    again = FinetuneFolder.open(tmp_path / "cut")
    plan = plan_finetune(again.config())
    again.check_same(plan)
    assert _settled(execute_finetune(plan, again)) == _settled(done[1])


def test_another_model_or_other_data_is_refused_on_resume(
    project: Path, done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = FinetuneFolder.open(done[0])
    with pytest.raises(InputError, match="has changed"):
        folder.check_same(plan_finetune(_config(project, attack_limit=11)))


def test_a_sigmoid_head_is_trained_by_its_own_loss(project: Path, tmp_path: Path) -> None:
    model = RobertaForSequenceClassification.from_pretrained(
        project / "raw", num_labels=1, ignore_mismatched_sizes=True
    )
    target: Any = load(f"hf-code:{project / 'raw'}", device="cpu")
    from bbox.targets.code.hf import SequenceClassifier

    single = SequenceClassifier(model, target.tokenizer, name="one", head="sigmoid", device="cpu", max_length=64)
    rows = _programs(32, 2)
    programs, labels = Programs(Program(code, "python") for code, _ in rows), torch.tensor([label for _, label in rows])
    trained, _ = finetune(single, programs, labels, Training(6, 5e-3, 8))
    after = SequenceClassifier(trained, target.tokenizer, name="one", head="sigmoid", device="cpu", max_length=64)
    assert bool((after(programs).argmax(1) == labels).all())


def test_what_cannot_be_trained_is_refused_in_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlabelled = project / "bare.jsonl"
    unlabelled.write_text(json.dumps({"code": "x = 1\n"}) + "\n")
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: FinetuneConfig("zoo:digits", "a", "b"), "zoo:digits is none"),
        (lambda: _config(project, target_options={"task": "defect"}), "leave out task"),
        (lambda: _config(project, budget=0), "budget is 0"),
        (lambda: plan_finetune(_config(project, lr=0.0)), "lr is 0"),
        (lambda: plan_finetune(_config(project, attack="cgba", attack_options={})), "holds programs"),
    ]
    for make, words in refused:
        with pytest.raises(UsageError, match=words) as caught:
            make()
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UsageError, match=r"pip install 'bbox-toolkit\[finetune\]'"):
        plan_finetune(_config(project))


def test_the_command_line_prints_the_table_and_json(
    project: Path, done: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(finetune_run, "plan_finetune", lambda config: plan_finetune(config))
    monkeypatch.setattr(sys, "argv", ["bbox", "defend", "--resume", str(done[0]), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert ended.value.code in (0, None)
    assert json.loads(shown.out)["transfer"] == done[1]["transfer"]
    assert "hardened" in shown.err and "robust" in shown.err
    monkeypatch.setattr(sys, "argv", ["bbox", "defend", "adversarial-finetune", "--target", "hf-code:x", "--data", "y"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "give --test-data" in capsys.readouterr().err
