"""A no-box run: its files, its figures, and that a killed one ends as an undisturbed one."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import bbox
from bbox.data.motion import save_motions
from bbox.errors import InputError, UsageError
from bbox.motion.validity import hinge_limits, measure
from bbox.results.craft_config import CraftConfig
from bbox.results.craft_folder import CraftFolder
from bbox.results.craft_run import ALL_BASELINES, execute_craft, plan_craft
from tests.motion_toys import MotionProject, motion_set

METHODS = ("adversarial", *ALL_BASELINES)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> MotionProject:
    """With an undisturbed run in ``whole``."""
    made = MotionProject.make(tmp_path_factory.mktemp("craft"), "craft_toy")
    with made.start(made.craft("whole")) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return made


def files(folder: Path) -> dict[str, bytes]:
    """Every file of motions."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.np[yz]")}


def without_seconds(folder: Path) -> dict:
    found = json.loads((folder / "results.json").read_text())
    del found["seconds"]
    return found


def test_files_and_figures(project: MotionProject) -> None:
    folder = CraftFolder.open(project.path / "whole")
    data = bbox.data.load(f"motion:{project.path}/data.npz")
    assert folder.methods() == ["adversarial", *sorted(ALL_BASELINES)]
    results = json.loads((folder.path / "results.json").read_text())
    assert results["queries"] == 0 and results["complete"]
    assert torch.equal(folder.motions("originals", list(range(6))), data.inputs)
    limits = hinge_limits(data.inputs, data.skeleton)
    for method in METHODS:
        rows = torch.stack([torch.from_numpy(np.load(folder.place(method) / f"{i:06d}.npy")) for i in range(6)])
        assert float((rows.double() - data.inputs.double()).abs().max()) <= 0.05
        figures = measure(rows, data.inputs, data.skeleton, limits)
        assert results["methods"][method]["mean_displacement"] == pytest.approx(float(figures.mean_displacement.mean()))
        for i, example in enumerate(results["examples"]):
            assert example["methods"][method]["bone_change"] == pytest.approx(float(figures.bone_change[i]))
    handed = bbox.data.load(f"motion:{folder.path}/adversarial.npz")
    assert torch.equal(handed.inputs, folder.motions("adversarial", list(range(6))))
    assert handed.skeleton == data.skeleton and torch.equal(handed.labels, data.labels)


def test_baselines_keep_bones_where_the_attack_does(project: MotionProject, tmp_path: Path) -> None:
    config = CraftFolder.open(project.path / "whole").config()
    options = {**config.attack_options, "rigid": "true"}
    config = dataclasses.replace(config, data=f"motion:{project.path}/data.npz", attack_options=options)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(project.path)
        plan = plan_craft(config)
        folder = CraftFolder.create(tmp_path / "rigid", plan.describe("test"))
        methods = execute_craft(plan, folder)["methods"]
    assert max(methods[name]["max_bone_change"] for name in METHODS) < 0.5, "per cent"
    assert min(methods[name]["mean_displacement"] for name in METHODS) > 1, "mm"


def test_a_motion_alone_is_the_motion_of_the_whole_run(project: MotionProject, tmp_path: Path) -> None:
    folder = CraftFolder.open(project.path / "whole")
    config = dataclasses.replace(folder.config(), data=f"motion:{project.path}/data.npz", indices=(4, 2), batch=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(project.path)
        plan = plan_craft(config)
        alone = CraftFolder.create(tmp_path / "alone", plan.describe("test"))
        execute_craft(plan, alone)
    for method in METHODS:
        assert torch.equal(alone.motions(method, [4, 2]), folder.motions(method, [4, 2])), method


def test_sigkill_while_crafting(project: MotionProject) -> None:
    arguments = project.craft("cut", "--batch", "2", "--quiet")
    cut = project.path / "cut"
    for there in ("adversarial/000003.npy", "baselines/low-pass/000001.npy"):
        code, err = project.stop_once(cut / there, signal.SIGKILL, arguments, TOY_SLEEP="0.03")
        assert code == -signal.SIGKILL, err
        assert not (cut / "results.json").exists()
        arguments = ["attack", "smi", "--resume", "cut", "--no-report", "--quiet"]
    with project.start(arguments) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert files(cut) == files(project.path / "whole")
    assert without_seconds(cut) == without_seconds(project.path / "whole")


def test_ctrl_c_while_crafting(project: MotionProject) -> None:
    arguments = project.craft("stopped", "--batch", "2", "--quiet", "--baselines", "none")
    stopped = project.path / "stopped"
    first = stopped / "adversarial/000001.npy"
    code, err = project.stop_once(first, signal.SIGINT, arguments, TOY_SLEEP="0.1")
    assert (code, len(err.strip().splitlines())) == (130, 1) and "bbox attack --resume" in err
    with project.start(["attack", "--resume", "stopped"]) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    wanted = {name: content for name, content in files(project.path / "whole").items() if "baselines" not in name}
    assert files(stopped) == wanted


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    """An encoder of its own, stopped after its first checkpoint."""
    data = motion_set(8)
    config = CraftConfig(attack_options={"encoder": "sequence", "epochs": 6, "iterations": 2}, data=data.name)

    def run(name: str, stop: int | None = None) -> CraftFolder:
        plan = plan_craft(config, data)
        place = tmp_path / name
        folder = CraftFolder.open(place) if place.exists() else CraftFolder.create(place, plan.describe("test"))

        def report(what: str, done: int, total: int) -> None:
            if stop is not None and what.startswith("encoder") and done >= stop:
                raise KeyboardInterrupt

        execute_craft(plan, folder, report=report)
        return folder

    with pytest.MonkeyPatch.context() as patch:
        from bbox.motion.recipes import RECIPES

        patch.setitem(RECIPES, "small", dataclasses.replace(RECIPES["small"], steps=0))
        whole = run("whole")
        with pytest.raises(KeyboardInterrupt):
            run("cut", stop=6)
        assert (tmp_path / "cut/encoder/pretraining.safetensors").exists()
        assert not (tmp_path / "cut/adversarial").exists()
        again = run("cut")
    assert files(again.path) == files(whole.path) and without_seconds(again.path) == without_seconds(whole.path)


def test_changed_data_is_refused(project: MotionProject, tmp_path: Path) -> None:
    data = motion_set(6)
    options = {"encoder": "sequence"}
    plan = plan_craft(CraftConfig(attack_options=options, data=data.name, limit=2), data)
    folder = CraftFolder.create(tmp_path / "run", plan.describe("test"))
    other = data.inputs.clone()
    other[5] += 0.001  # not attacked, but the encoder learns from it
    turned = dataclasses.replace(data.skeleton, parents=(*data.skeleton.parents[:-1], 0))
    for changed in (dataclasses.replace(data, inputs=other), dataclasses.replace(data, skeleton=turned)):
        with pytest.raises(InputError, match="has changed since"):
            execute_craft(plan_craft(plan.config, changed), folder)
    assert not (tmp_path / "run/adversarial").exists()


def test_the_library_call(tmp_path: Path, project: MotionProject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(project.path)
        options = {"encoder": f"torch:{project.name}:encoder", "iterations": 2, "epsilon": 0.02}
        data = motion_set(5)
        result = bbox.craft(data, options=options, norm="l2", limit=3, baselines=("offset",))
        assert result.adversarial.shape == (3, *data.inputs.shape[1:]) and result.folder is None
        assert set(result.baselines) == {"offset"} and result.results["queries"] == 0
        kept = bbox.craft(data, options=options, norm="l2", limit=3, out=tmp_path / "kept")
        assert torch.equal(kept.adversarial, result.adversarial) and kept.folder == tmp_path / "kept"
        for bad, said in (
            ({"attack": "cgba"}, "cgba asks a target"),
            ({"baselines": ("noize",)}, "did you mean 'noise'"),
            ({"norm": "l1"}, "norm is 'l1'"),
            ({"limit": 0}, "limit is 0"),
        ):
            with pytest.raises(UsageError, match=said):
                bbox.craft(data, **bad)
        with pytest.raises(UsageError, match="holds 1 motion"):
            bbox.craft(data.take([0]), options=options)


def test_a_broken_file_is_one_line(project: MotionProject, tmp_path: Path) -> None:
    folder = CraftFolder.create(tmp_path / "run", CraftFolder.open(project.path / "whole").run())
    place = tmp_path / "run/originals/000000.npy"
    place.parent.mkdir()
    for content, said in ((np.zeros(3, np.float32), r"of shape \(3,\)"), (np.zeros((3, 12, 9, 1)), "float64")):
        np.save(place, content)
        with pytest.raises(InputError, match=said):
            folder.motions("originals", [0])
    place.write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read"):
        folder.motions("originals", [0])


def test_saved_data_is_the_data(tmp_path: Path) -> None:
    save_motions(tmp_path / "a.npz", motion_set(4))
    assert bbox.data.load(f"motion:{tmp_path}/a.npz").fingerprint() == motion_set(4).fingerprint()
