"""Mapping files: what goes to the server, what comes back, and files that are refused."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recording_server import RecordingServer

from bbox.code import Program, Programs
from bbox.errors import InputError, TargetError, UsageError
from bbox.targets import load

ROWS = torch.round(torch.rand(5, 3, 6, 4, generator=torch.Generator().manual_seed(0)) * 255) / 255
PICTURE = """
url = "{url}"
image = "png"
classes = ["cat", "dog", "eel"]
[request.input]
picture = "$row"
options = { top = 3, list = ["x", 1] }
[answer]
top = "results"
score_path = "p"
"""
TEXT = """
url = "{url}"
image = "text"
rows = "many"
classes = ["clean", "bad"]
[request]
files = "$rows"
[answer]
labels = "files[].verdict"
"""


def serve(answer):
    return RecordingServer(answer)


@pytest.mark.parametrize("data_uri", [False, True])
def test_base64_png_one_a_request_and_the_best_classes(api, data_uri):
    def answer(body):
        assert body["input"]["options"] == {"top": 3, "list": ["x", 1]}
        text = body["input"]["picture"]
        assert text.startswith("data:image/png;base64,") == data_uri
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2] if data_uri else text))))
        return {"results": [{"label": "eel", "p": pixels.mean() / 255}, {"label": "cat", "p": float(pixels[0, 0, 2])}]}

    with serve(answer) as server:
        target = api(server.url, PICTURE.replace('"png"', '"png"\ndata_uri = true') if data_uri else PICTURE)
        scores = target(ROWS)
    assert target.access == "scores" and target.num_classes == 3 and target.class_names == ("cat", "dog", "eel")
    assert server.requests == 5 and target.settings.batch == 1
    assert torch.allclose(scores[:, 2], ROWS.mean((1, 2, 3)), atol=1e-6)
    assert torch.equal(scores[:, 1], torch.zeros(5))
    assert torch.allclose(scores[:, 0], ROWS[:, 2, 0, 0] * 255)


def test_jpeg_and_grey(api):
    def answer(body):
        image = Image.open(io.BytesIO(base64.b64decode(body["input"]["picture"])))
        assert image.format == "JPEG" and image.mode == "L"
        return {"results": [{"label": "dog", "p": 1}]}

    with serve(answer) as server:
        scores = api(server.url, PICTURE.replace('"png"', '"jpeg"\nquality = 80'))(ROWS[:, :1])
    assert scores.argmax(1).tolist() == [1] * 5


@pytest.mark.parametrize(("layout", "shape"), [("chw", (3, 6, 4)), ("hwc", (6, 4, 3)), ("flat", (72,))])
@pytest.mark.parametrize("span", ["0-1", "0-255"])
def test_arrays_many_a_request(api, layout, shape, span):
    text = f"""
url = "{{url}}"
rows = "many"
image = "array"
layout = "{layout}"
range = "{span}"
[request]
data = ["$rows"]
[answer]
labels = "out.label"
"""

    def answer(body):
        array = np.array(body["data"][0])
        assert array.shape[1:] == shape
        assert array.max() > 1 if span == "0-255" else array.max() <= 1
        return {"out": {"label": list(range(len(array)))}}

    with serve(answer) as server:
        target = api(server.url, text, batch=3)
        labels = target(ROWS)
    assert target.access == "labels" and labels.dtype == torch.int64
    assert labels.tolist() == [0, 1, 2, 0, 1]


def test_programs_as_text_and_labels_by_name(api):
    def answer(body):
        return {"files": [{"verdict": "bad" if "eval" in text else "clean"} for text in body["files"]]}

    programs = Programs([Program("x = eval(y)", "python"), Program("x = 1", "python")])
    with serve(answer) as server:
        target = api(server.url, TEXT)
        assert target.takes == "code"
        assert target(programs).tolist() == [1, 0]
        with pytest.raises(InputError, match="pairs"):
            target(Programs([Program("a", "python", "b")]))


def test_a_name_that_is_no_class_is_no_answer(api):
    with serve(lambda body: {"files": [{"verdict": "ugly"}]}) as server:
        assert api(server.url, TEXT)(Programs([Program("x", "python")])).tolist() == [-1]


def test_a_path_that_finds_nothing(server, api):
    text = (
        TEXT.replace('"text"', '"array"\nlayout = "flat"').replace("files =", "instances =").replace("files[]", "a[]")
    )
    wrong = api(server.url, text)
    with pytest.raises(
        InputError, match=r"'a\[\].verdict' finds nothing in its answer, which holds predictions \(list\)"
    ):
        wrong(ROWS)


def test_a_path_that_finds_nothing_any_more(api):
    answers = [{"results": [{"label": "cat", "p": 1}]}, {"busy": True}]
    with serve(lambda body: answers.pop(0)) as server:
        target = api(server.url, PICTURE)
        target(ROWS[:1])
        with pytest.raises(TargetError, match=r"'results' finds nothing in its answer, which holds busy \(bool\)"):
            target(ROWS[:1])


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"label": "cow", "p": 1}, "the class 'cow', which is not among classes"),
        ({"name": "cat", "p": 1}, "a class without 'label' and 'p'; it has name, p"),
        ({"label": "cat", "p": "high"}, "a class without"),
    ],
)
def test_best_classes_that_are_none(api, entry, says):
    with serve(lambda body: {"results": [entry]}) as server, pytest.raises(TargetError, match=says):
        api(server.url, PICTURE)(ROWS[:1])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("image =", "imge =", "did you mean 'image'"),
        ('image = "png"', 'image = "gif"', "image is 'gif', expected array or png or jpeg or text"),
        ('top = "results"', 'tops = "results"', "did you mean 'top'"),
        ('top = "results"', 'top = "results[?"', "no JMESPath"),
        ('top = "results"', 'top = "results"\nscores = "x"', "scores and top of"),
        ('picture = "$row"', 'picture = "$rows"', 'has "\\$rows", and rows is "one"'),
        ('picture = "$row"', 'picture = "row"', 'has no "\\$row"'),
        ('classes = ["cat", "dog", "eel"]', "", "needs classes"),
        ('image = "png"', 'image = "png"\nlayout = "chw"', "layout does not go with"),
        ('image = "png"', 'image = "png"\ndata_uri = 1', "data_uri is a int"),
        ("[answer]", "[answer", "no TOML"),
        ('url = "{url}"', "", "has no url"),
        ('url = "{url}"', "url = 3", "url is a int"),
        ('image = "png"', 'image = "png"\nnum_classes = 4', "num_classes is 4, and classes names 3"),
    ],
)
def test_files_that_are_refused(api, old, new, says):
    assert old in PICTURE
    with pytest.raises(InputError, match=says):
        api("http://127.0.0.1:9/x", PICTURE.replace(old, new))


def test_batch_with_one_a_request(api):
    with pytest.raises(UsageError, match='batch=8, and the mapping says rows = "one"'):
        api("http://127.0.0.1:9/x", PICTURE, batch=8)


def test_no_file():
    with pytest.raises(InputError, match="no such file"):
        load("api:nowhere.toml")


def test_the_example_is_read(monkeypatch):
    monkeypatch.setenv("EXAMPLE_API_TOKEN", "x")
    target = load(f"api:{Path(__file__).parents[3] / 'examples' / 'api.toml'}")
    assert (target.class_names, target.access, target.settings.batch) == (("cat", "dog", "ship"), "scores", 1)
