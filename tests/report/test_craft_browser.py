"""The skeleton player in a real browser, under the page's own content security policy."""

import re

import numpy as np
import pytest
import torch
from motion_browser import Browser, chromium
from motion_runs import BODY, METHODS, attack_run, changed, craft_run, judged, walks

from bbox.motion.skeleton import Skeleton
from bbox.report import write_craft_report, write_report
from bbox.results.craft_folder import ADVERSARIAL

pytestmark = [pytest.mark.browser, pytest.mark.skipif(chromium() is None, reason="no chromium")]

EVIL = "</script><script>hacked = 1</script><img src=x onerror='hacked = 1'>"
HELPERS = """
part = (name) => document.querySelector(`[data-part="${name}"]`);
pathOf = (name) => part(name).getAttribute("d");
set = (name, value, event = "change") => { part(name).value = value; part(name).dispatchEvent(new Event(event)); };
drawn = () => ["original-bones", "original-joints", "changed-bones", "changed-joints"].map(pathOf);
points = (name) => pathOf(name).match(/M/g)?.length ?? 0;
0"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def motions():
    rows = walks(3, frames=24, bodies=2)
    rows[0, ..., 1] = 0  # one body
    rows[1, :, 5:9, :, 1] = 0  # the second leaves and comes back
    rows[1, :, 20:] = 0  # padding
    return rows


@pytest.fixture(scope="module")
def page(tmp_path_factory, motions):
    labels = [0, 1, 2]
    said = dict.fromkeys(METHODS, labels) | {ADVERSARIAL: [1, 2, 2], "offset": [0, 0, 2]}
    folder = craft_run(
        tmp_path_factory.mktemp("craft") / "run", motions, evaluation=[judged("zoo:st-gcn", labels, labels, said)]
    )
    return write_craft_report(folder)


@pytest.fixture
def still(browser, page):
    """The page as a reader sees it who prefers reduced motion."""
    browser.look(1280)
    browser.open(page)
    browser.run(HELPERS)
    return browser


class TestPlayer:
    def test_is_there_at_once_and_still_for_those_who_want_it_so(self, still):
        assert still.faults() == []
        assert still.run("part('play').textContent") == "Play" and still.run("part('frame').value") == "0"
        assert still.run("points('original-joints')") == 9 and still.run("points('changed-bones')") == len(BODY.bones)
        assert still.run("part('time').textContent") == "frame 1 of 24 \u00b7 0.00 s"

    def test_plays_otherwise_and_stops(self, browser, page):
        browser.look(1280, 2000, calm=False)
        browser.open(page)
        browser.run(HELPERS)
        browser.run("part('stage').scrollIntoView()")
        assert browser.run("part('play').textContent") == "Pause"
        moves = """new Promise((done) => { const look = () =>
          Number(part('frame').value) > 1 ? done(true) : setTimeout(look, 20); look(); })"""
        assert browser.run(moves)
        browser.run("part('play').click()")
        later = "new Promise((done) => setTimeout(() => done(part('frame').value), 150))"
        assert browser.run("part('frame').value") == browser.run(later)
        assert browser.run("part('play').textContent") == "Play" and browser.faults() == []

    def test_the_scrubber_shows_another_frame(self, still):
        before = still.run("drawn()")
        still.run("set('frame', 12, 'input')")
        after = still.run("drawn()")
        assert all(a != b for a, b in zip(before, after, strict=True))
        assert still.run("part('time').textContent") == "frame 13 of 24 \u00b7 0.40 s"
        assert still.run("part('frame').getAttribute('aria-valuetext')") == "frame 13 of 24, 0.40 s"
        assert abs(float(still.run("parseFloat(part('marker').style.left)")) - 100 * 12.5 / 24) < 0.01

    def test_another_method(self, still, motions):
        before, heat = still.run("drawn()"), still.run("part('heat').toDataURL()")
        assert still.run("part('said').textContent") == "zoo:st-gcnwalk \u2192 run"
        still.run("set('method', 'noise')")
        after = still.run("drawn()")
        assert before[:2] == after[:2] and before[2] != after[2]
        assert still.run("part('heat').toDataURL()") != heat
        assert still.run("part('name').textContent") == "noise"
        assert still.run("part('said').textContent") == "zoo:st-gcnwalk, as before"

    def test_exaggerated_and_says_so(self, still):
        before = still.run("drawn()")
        assert still.run("part('exaggerated').textContent") == ""
        still.run("set('times', 10)")
        after = still.run("drawn()")
        assert before[0] == after[0] and before[2] != after[2]
        assert still.run("part('exaggerated').textContent") == "change \u00d710, exaggerated"

        def bones(path):
            return np.array(re.findall(r"-?[\d.]+", path), float)

        grown = (bones(after[2]) - bones(before[0])) / 10 - (bones(before[2]) - bones(before[0]))
        assert np.abs(grown).max() < 0.12  # of a pixel, both rounded to tenths

    def test_turned_by_keys_and_by_mouse(self, still):
        seen = [still.run("pathOf('original-bones')")]
        still("Emulation.setFocusEmulationEnabled", enabled=True)
        still.run("part('stage').focus()")
        still.key("ArrowLeft")
        seen.append(still.run("pathOf('original-bones')"))
        where = "(({left, top}) => [left + 200, top + 150])(part('stage').getBoundingClientRect())"
        still.drag(*still.run(f"part('stage').scrollIntoView(), {where}"), by=80)
        seen.append(still.run("pathOf('original-bones')"))
        assert len(set(seen)) == 3
        heights = [re.findall(r"[ML][\d.-]+ ([\d.-]+)", path)[0] for path in seen]
        assert max(map(float, heights)) - min(map(float, heights)) < 40  # about the vertical axis alone
        still.key(" ")
        assert still.run("part('play').textContent") == "Pause"

    def test_bodies_that_come_and_go(self, still):
        still.run("set('example', 1)")
        counts = []
        for frame in (0, 6, 10):
            still.run(f"set('frame', {frame}, 'input')")
            counts.append(still.run("[points('original-joints'), points('changed-joints')]"))
        assert counts == [[18, 18], [9, 9], [18, 18]]
        assert still.run("part('time').textContent") == "frame 11 of 20 \u00b7 0.33 s"  # padding is no frame
        assert still.run("part('joints').children.length") == 18

    def test_heatmap_says_what_the_files_say(self, still, motions):
        still.run("set('example', 1)")
        still.run("set('method', 'low-pass')")
        moved = (changed(motions, "low-pass") - motions)[1].norm(dim=0) * 1000
        script = """(([x, y]) => {
          const box = part('heat').getBoundingClientRect();
          part('field').dispatchEvent(new PointerEvent('pointermove',
            {clientX: box.left + (x + 0.5) / 20 * box.width, clientY: box.top + (y + 0.5) / 18 * box.height}));
          return part('value').textContent; })"""
        assert still.run(f"{script}([3, 11])") == f"head, body 2, frame 4 of 20 (0.10 s): {moved[3, 2, 1]:.1f} mm"
        assert still.run(f"{script}([6, 11])") == "head, body 2, frame 7 of 20 (0.20 s): no body"
        clear = "[3, 6].map((x) => part('heat').getContext('2d').getImageData(x, 11, 1, 1).data[3])"
        assert still.run(clear) == [255, 0]
        still.run("set('frame', 6, 'input')")
        mean, most = moved[6, :, 0].mean(), moved[6, :, 0].max()
        assert f"{mean:.1f} mm in the mean, at most {most:.1f} mm" in still.run("part('readout').textContent")

    def test_heatmap_by_keys(self, still):
        still("Emulation.setFocusEmulationEnabled", enabled=True)
        still.run("part('field').focus()")
        for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
            still.key(key)
        assert still.run("part('value').textContent").startswith("chest, frame 3 of 24 (0.07 s): ")
        assert still.run("part('frame').value") == "2"

    @pytest.mark.parametrize(("width", "dark"), [(1280, True), (400, False)])
    def test_fits_the_window(self, browser, page, width, dark):
        browser.look(width, dark=dark)
        browser.open(page)
        inside = """[document.documentElement.scrollWidth <= innerWidth,
          [...document.querySelectorAll("main *")].filter((e) => !e.closest(".scroll *, .stage *, .rate svg *")
            && e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5).map((e) => e.outerHTML)]"""
        assert browser.run(inside) == [True, []] and browser.faults() == []


def test_hostile_names_are_text(browser, tmp_path):
    joints = tuple(EVIL + joint for joint in BODY.joints)
    skeleton = Skeleton("evil", joints, BODY.parents, BODY.sides)
    labels = [0, 1, 2]
    target = judged(EVIL, labels, labels, {m: [1, 2, 0] for m in METHODS})
    folder = craft_run(
        tmp_path / "run", walks(3, frames=5), skeleton=skeleton, names=(EVIL,) * 3, ids=[EVIL] * 3, evaluation=[target]
    )
    browser.look(900)
    browser.open(write_craft_report(folder))
    browser.run(HELPERS)
    assert browser.run("typeof hacked") == "undefined" and browser.faults() == []
    assert browser.run("part('joints').textContent") == "".join(joints)
    assert browser.run("part('said').textContent") == f"{EVIL}{EVIL} \u2192 {EVIL}"
    assert browser.run("document.images.length") == 0


def test_a_motion_that_stands_still(browser, tmp_path):
    """One frame, no change, one joint, no bone: nothing to scale by."""
    motions = torch.ones((1, 3, 1, 1, 1))
    skeleton = Skeleton("point", ("all",), (-1,))
    made = dict.fromkeys(METHODS, motions)
    browser.look(900)
    browser.open(write_craft_report(craft_run(tmp_path / "run", motions, skeleton=skeleton, made=made)))
    browser.run(HELPERS)
    assert browser.faults() == [] and browser.run("points('changed-joints')") == 1
    assert "moved by 0.0 mm" in browser.run("part('readout').textContent")
    assert "NaN" not in browser.run("document.querySelector('.player').outerHTML")


def test_run_of_an_attack_that_asks(browser, tmp_path):
    with attack_run(tmp_path / "run") as folder:
        path = write_report(folder)
    browser.look(1280)
    browser.open(path)
    browser.run(HELPERS)
    assert browser.faults() == [] and browser.run("points('changed-joints')") == 9
    browser.run("set('example', 2)")
    assert browser.run("part('details').textContent") == "l2 0.040 m300 queries"
    assert browser.run("part('said').textContent") == "zoo:st-gcnjump \u2192 walk"
