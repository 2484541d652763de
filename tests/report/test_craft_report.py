import base64
import html
import json
import re
import shutil

import numpy as np
import pytest
import torch
from motion_runs import BODY, MEASURES, METHODS, attack_run, changed, craft_run, judged, walks

from bbox.errors import InputError
from bbox.motion.skeleton import Skeleton
from bbox.report import motion, render, render_craft, write_craft_report
from bbox.report.motion import Shown, player, upright
from bbox.results.craft_folder import ADVERSARIAL
from bbox.results.store import StorageError

EVIL = "</script><script>hacked = 1</script><!--<img src=x onerror='hacked = 1'>&\"\u2028"


def two_targets():
    labels = [0, 1, 2, 0]
    said = {
        ADVERSARIAL: [1, 2, 0, 0],
        "noise": labels,
        "smooth-noise": [0, 1, 0, 0],
        "offset": [1, 1, 2, 0],
        "low-pass": [0, 2, 2, 0],
    }
    wrong = [1, 1, 2, 0]
    return [
        judged("zoo:st-gcn", labels, labels, said),
        judged("zoo:motion-gru", labels, wrong, {m: [1, *s[1:3], 2] for m, s in said.items()}),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return craft_run(tmp_path_factory.mktemp("craft") / "run", evaluation=two_targets())


@pytest.fixture(scope="module")
def page(folder):
    return render_craft(folder)


def text_of(page):
    body = re.sub(r"<style>.*?</style>|<script.*?</script>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def data_of(page):
    (found,) = re.findall(r'<script type="application/json" id="motion-data">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(found)


def unpack(packed, shape):
    whole = np.frombuffer(base64.b64decode(packed["data"]), "<i2").reshape(shape).astype(float)
    return np.where(whole == -32768, np.nan, whole * packed["unit"])


class TestFigures:
    def test_written_into_the_folder_and_always_the_same(self, folder, page, tmp_path):
        path = write_craft_report(folder)
        assert path == folder.path / "report.html" and path.read_text(encoding="utf-8") == page
        copy = type(folder)(shutil.copytree(folder.path, tmp_path / "copy"))
        assert render_craft(copy) == page

    def test_fooling_rates_are_those_of_the_evaluation(self, folder, page):
        text = text_of(page)
        targets = folder.read("evaluation.json")["targets"]
        for method in METHODS:
            cells = ["smi" if method == ADVERSARIAL else method]
            for target in targets:
                for among in ("all", "correct"):
                    figures = target["methods"][method][among]
                    low, high = (100 * bound for bound in figures["interval"])
                    cells += [f"{100 * figures['value']:.1f}%", f"{figures['changed']} of {figures['of']}"]
                    cells += [f"{low:.1f} to {high:.1f}"]
            mean = sum(target["methods"][method]["all"]["value"] for target in targets) / 2
            assert " ".join([*cells, f"{100 * mean:.1f}%"]) in text

    def test_dots_and_intervals_stand_where_the_rates_are(self, page):
        first = page[page.index('<figure class="plot">') :]
        assert '<line class="offset" x1="25.0%" x2="25.0%"' in first  # the offset fools 1 of 4
        assert re.search(r'<g class="mine"><line x1="30.06%" x2="95.44%"[^>]*/><circle cx="75.0%"', first)
        assert first.count("<circle") == 10

    def test_against_the_offset_on_the_same_motions(self, page):
        text = text_of(page)
        assert "no clear difference . 2 fooled by the attack alone, 0 by the offset alone, 1 by both" in text
        assert "(sign test, p = 0.5)" in text

    @pytest.mark.parametrize(("mine", "verdict"), [(True, "the attack is better"), (False, "the attack is worse")])
    def test_a_clear_difference(self, tmp_path, mine, verdict):
        labels, moved = [0] * 6, [1] * 6
        said = {**dict.fromkeys(METHODS, labels), ADVERSARIAL if mine else "offset": moved}
        folder = craft_run(tmp_path / "run", walks(6, frames=4), evaluation=[judged("t", labels, labels, said)])
        assert f"Against the offset: {verdict} . {6 * mine} fooled by the attack alone" in text_of(render_craft(folder))

    def test_measures_are_those_of_the_results(self, folder, page):
        text, found = text_of(page), folder.read("results.json")["methods"]
        for method, figures in found.items():
            cells = [figures[key] * (100 if key == "hinges_outside" else 1) for key in MEASURES]
            digits = (1, 2, 1, 2, 1)
            row = [f"{cell:.{places}f}" for cell, places in zip(cells, digits, strict=True)]
            assert " ".join(["smi" if method == ADVERSARIAL else method, *row]) in text
        assert "velocity, mm/frame" not in text  # the run does not have it

    def test_head_encoder_and_costs(self, page):
        text = text_of(page)
        assert (
            "Encoder both learned" in text
            and "Queries 0 no target was asked" in text
            and "Epsilon 0.03 m linf: largest displacement" in text
        )
        assert "learned from 400 motions without labels" in text
        assert "the second is nearest to the first 52.5% 87.1%" in text
        assert "Loss from 3.210 to 1.125, epochs 1 to 3. The attack climbs the trained encoder." in text
        assert "encoder, learned once 12.5 s" in text and "noise 2.5 s 0.625 s" in text
        assert "zoo:st-gcn evaluate 321" in text and "d" * 16 in text and "c" * 64 in text
        assert "bbox attack smi --epsilon 0.03" in text and "torch 2.99" in text

    def test_an_encoder_that_got_worse_is_a_warning(self, tmp_path):
        folder = craft_run(tmp_path / "run", encoder={"warning": "training made the encoder worse"})
        assert '<p class="banner">Encoder: training made the encoder worse</p>' in render_craft(folder)

    def test_without_an_evaluation_the_command_that_makes_one(self, tmp_path):
        folder = craft_run(tmp_path / "run")
        page = render_craft(folder)
        assert "bbox evaluate RUN --target zoo:st-gcn" in page and "<circle" not in page
        assert "4 of 4 motions, in the order of the data" in text_of(page)

    def test_without_labels_there_is_no_column_of_those_right_before(self, tmp_path):
        (target, _) = two_targets()
        for figures in target["methods"].values():
            figures["correct"] = None
        folder = craft_run(tmp_path / "run", evaluation=[{**target, "clean_accuracy": None, "correct": None}])
        text = text_of(render_craft(folder))
        assert "right before all" not in text and "smi 75.0% 3 of 4 30.1 to 95.4 noise" in text

    def test_a_target_that_was_not_asked_everything(self, tmp_path):
        first, second = two_targets()
        for part in ("methods", "answers"):
            del second[part]["offset"], second[part][ADVERSARIAL]
        folder = craft_run(tmp_path / "run", evaluation=[first, second])
        page = render_craft(folder)
        assert page.count("Against the offset") == 1
        assert data_of(page)["examples"][0]["answers"][ADVERSARIAL][1] == ["not asked", False]

    def test_classes_as_each_target_numbers_them(self, tmp_path):
        first, second = two_targets()
        folder = craft_run(tmp_path / "run", evaluation=[first, {**second, "class_names": ["x", "y", "z"]}])
        example = data_of(render_craft(folder))["examples"][0]
        assert example["clean"] == ["run", "y"] and example["answers"][ADVERSARIAL] == [["jump", True], ["z", True]]

    def test_an_encoder_that_was_at_hand(self, tmp_path):
        text = text_of(render_craft(craft_run(tmp_path / "run", encoder={"encoder": "torch:mine:make"})))
        assert "Encoder torch:mine:make Seed" in text and "No quality figures are on record." in text

    def test_a_run_that_is_not_complete(self, tmp_path):
        page = render_craft(craft_run(tmp_path / "run", finished=False))
        assert "Go on with <code>bbox attack smi --resume</code>" in page.replace("\n  ", " ")
        assert "<script" not in page and "runs no script" in text_of(page)

    def test_a_file_that_is_gone(self, tmp_path):
        folder = craft_run(tmp_path / "run")
        (folder.place("noise") / "000003.npy").unlink()
        with pytest.raises(InputError, match="cannot be read"):
            write_craft_report(folder)

    def test_folder_that_cannot_be_written(self, tmp_path):
        folder = craft_run(tmp_path / "run", walks(1, frames=3))
        (folder.path / ".report.html.part").mkdir()
        with pytest.raises(StorageError, match="cannot write"):
            write_craft_report(folder)


class TestEscaping:
    def test_everything_that_a_user_names(self, tmp_path):
        evil = Skeleton(EVIL, tuple(EVIL + joint for joint in BODY.joints), BODY.parents, BODY.sides)
        targets = [{**target, "target": EVIL, "fingerprint": EVIL} for target in two_targets()]
        folder = craft_run(
            tmp_path / "run",
            skeleton=evil,
            names=(EVIL,) * 3,
            ids=[EVIL] * 4,
            data=EVIL,
            command=EVIL,
            evaluation=targets,
            encoder={"warning": EVIL},
        )
        page = render_craft(folder)
        assert page.count("<script") == 2 and page.count("</script") == 2 and "<img" not in page
        assert text_of(page).count("hacked = 1") >= 30
        data = data_of(page)
        assert data["joints"] == list(evil.joints) and data["targets"] == [EVIL, EVIL]
        assert data["examples"][0]["details"] == [f"labelled {EVIL}"]

    def test_a_name_that_is_not_utf8(self, tmp_path):
        folder = craft_run(tmp_path / "run", ids=["caf\udce9"] * 4)
        assert "caf?" in write_craft_report(folder).read_text(encoding="utf-8")

    def test_no_script_but_its_own_may_run(self, page):
        (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
        assert re.fullmatch(
            r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-.{44}'", policy
        )


class TestPlayer:
    def test_what_is_embedded_is_what_is_saved(self, folder, page):
        data = data_of(page)
        assert data["bones"] == [list(bone) for bone in BODY.bones] and data["rate"] == 30
        first = data["examples"][0]  # the second motion, which fools both
        original = folder.motions("originals", [3])[0].double().permute(1, 3, 2, 0).numpy()
        found = unpack(first["original"], original.shape)
        shift = found - original
        assert np.abs(shift - shift[0, 0, 0]).max() < 1.1e-4 and np.abs(found.mean((0, 1, 2))).max() < 1e-4
        for method in METHODS:
            made = folder.motions(method, [3])[0].double().permute(1, 3, 2, 0).numpy()
            assert np.abs(unpack(first["changes"][method], original.shape) - (made - original)).max() < 1e-6

    def test_motions_that_fool_most_come_first(self, page):
        titles = re.findall(r"<option value=\"\d+\">(clip[^<]*)</option>", page)
        counts = [int(title.split("fools ")[1][0]) for title in titles]
        assert counts == sorted(counts, reverse=True) and counts[0] == 2 and len(counts) == 4
        first = data_of(page)["examples"][0]
        assert first["clean"] == ["run", "run"] and first["answers"][ADVERSARIAL] == [["jump", True], ["jump", True]]
        assert first["answers"]["offset"] == [["run", False], ["run", False]]

    def test_absent_bodies_and_padding(self):
        motions = walks(1, frames=12, bodies=3)
        motions[..., 1] = 0  # nobody
        motions[:, :, 9:] = 0
        motions[:, :, 4:6, :, 2] = 0
        each = Shown("a", motions[0], {"noise": changed(motions, "noise")[0]})
        (example,) = player(BODY, 30, {"noise": "noise"}, [each])["data"]["examples"]
        assert example["frames"] == 9 and example["bodies"] == [1, 3]
        for packed in (example["original"], example["changes"]["noise"]):
            missing = np.isnan(unpack(packed, (9, 2, 9, 3)))
            assert missing[4:6, 1].all() and missing.sum() == 2 * 9 * 3

    def test_a_body_is_turned_to_the_viewer(self):
        motions = walks(1)
        quarter = motions[:, [2, 1, 0]] * torch.tensor([1.0, 1, -1]).view(1, 3, 1, 1, 1)
        for rows, yaw in ((motions, 0.0), (quarter, -np.pi / 2)):
            (example,) = player(BODY, 30, {}, [Shown("a", rows[0], {})])["data"]["examples"]
            assert abs(example["yaw"] - yaw) < 0.3

    def test_as_many_as_fit(self, monkeypatch):
        shown = [Shown(f"{i}", each, {"noise": each}) for i, each in enumerate(walks(10))]
        assert player(BODY, 30, {"noise": "noise"}, shown)["shown"] == 10
        monkeypatch.setattr(motion, "_CHARACTERS", 5 * 20 * 9 * 3 * 2 * 4 // 3 * 2)
        made = player(BODY, 30, {"noise": "noise"}, shown)
        assert (made["shown"], made["step"]) == (5, 1)

    def test_frames_are_left_out_only_where_few_would_fit(self, monkeypatch):
        motions = walks(10)
        shown = [Shown(f"{i}", each, {"noise": each}) for i, each in enumerate(motions)]
        monkeypatch.setattr(motion, "_CHARACTERS", 20 * 9 * 3 * 2 * 4 // 3 * 2)
        made = player(BODY, 30, {"noise": "noise"}, shown)
        assert (made["shown"], made["step"]) == (3, 3)
        (first, *_) = made["data"]["examples"]
        assert first["frames"] == 20
        found = unpack(first["original"], (7, 1, 9, 3))
        expected = motions[0, :, ::3].permute(1, 3, 2, 0).double().numpy()
        assert np.abs((found - found[:1]) - (expected - expected[:1])).max() < 2e-4

    def test_a_run_of_ntu_size_stays_small(self, tmp_path):
        skeleton = Skeleton("many", tuple(f"joint {i}" for i in range(25)), tuple(range(-1, 24)))
        motions = torch.rand((6, 3, 300, 25, 2), generator=torch.Generator().manual_seed(0))
        folder = craft_run(tmp_path / "run", motions, skeleton=skeleton, methods=METHODS)
        path = write_craft_report(folder)
        assert 1_500_000 < path.stat().st_size < 3_000_000
        assert "3 of 6 motions" in text_of(path.read_text(encoding="utf-8"))

    def test_mean_over_joints_without_a_script(self, page):
        bars = page[page.index("How far each joint is moved, in the mean") :]
        bars = bars[: bars.index("<script")]
        assert re.findall(r">(\d+\.\d)</text>", bars) == ["41.6"] * 9 + ["52.0"] * 36  # 24 and 30 mm, times sqrt(3)
        assert all(f">{joint}</text>" in bars for joint in BODY.joints)

    @pytest.mark.parametrize(
        ("turn", "axis", "sign"), [((0, 1, 2), 1, 1), ((0, 2, 1), 2, 1), ((1, 0, 2), 0, 1), ((0, 1, 2), 1, -1)]
    )
    def test_up_is_from_feet_to_head(self, turn, axis, sign):
        motions = walks(2)[:, list(turn)] * sign
        found, way, how = upright(BODY, motions)
        assert (found, way) == (axis, sign) and "feet" in how
        view = motion._axes(axis, sign)
        assert np.isclose(np.linalg.det(view), 1)  # turned, not mirrored
        assert np.allclose(view[1] @ np.eye(3)[axis], sign)

    def test_up_without_names_is_the_longest_axis(self):
        nameless = Skeleton("n", tuple(f"j{i}" for i in range(9)), BODY.parents)
        axis, sign, how = upright(nameless, walks(2)[:, [1, 2, 0]])
        assert (axis, sign) == (0, 1) and "longest" in how


class TestAttackRun:
    def test_the_usual_report_with_the_player(self, tmp_path):
        with attack_run(tmp_path / "run") as folder:
            page = render(folder)
        text = text_of(page)
        assert "clip-0: walk \u2192 run" in text and "root mean square displacement of a joint" in text
        assert "3 of 3 with an adversarial file, spread evenly from the smallest l2 to the largest" in text
        assert "coordinates move at most 0.1 m" in text and "saved file, in metres" in text
        example = data_of(page)["examples"][2]
        assert example["details"] == ["l2 0.040 m", "300 queries"]
        assert example["clean"] == ["jump"] and example["answers"] == {"cgba": [["walk", True]]}
        assert page.count("<svg") == 5 and "no grayscale" not in text

    def test_files_that_are_gone(self, tmp_path):
        with attack_run(tmp_path / "run") as folder:
            folder.array_path("originals", 0).unlink()
            page = render(folder)
            assert "2 of 3 with an adversarial file" in text_of(page)
            shutil.rmtree(folder.path / "adversarial")
            page = render(folder)
        assert "There is no motion to show: the files cannot be read" in text_of(page) and "<script" not in page

    def test_hostile_names(self, tmp_path):
        with attack_run(tmp_path / "run", ids=[EVIL] * 3, names=(EVIL,) * 3) as folder:
            page = render(folder)
        assert page.count("<script") == 2 and page.count("</script") == 2 and "<img" not in page
