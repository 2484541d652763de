"""pt2: real archives of torch.export.save, fixed and dynamic, and files that are none."""

import json
import zipfile
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.export import Dim

from bbox.errors import InputError, UsageError
from bbox.targets import load, wrap


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 5)
    ).eval()


def export(path, module=None, batch=2, dim=None, rows=None, **kwargs):
    module = network() if module is None else module
    rows = torch.rand(batch, 3, 8, 8) if rows is None else rows
    program = torch.export.export(module, (rows,), dynamic_shapes=None if dim is None else ({0: dim},), **kwargs)
    torch.export.save(program, path)
    return str(path)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pt2")
    return SimpleNamespace(
        fixed=export(folder / "fixed.pt2", batch=4),
        one=export(folder / "one.pt2", batch=1),
        dynamic=export(folder / "dynamic.pt2", dim=Dim("batch")),
        bounded=export(folder / "bounded.pt2", dim=Dim("batch", min=2, max=3)),
    )


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("fixed", 4, 4), ("one", 1, 1), ("dynamic", 1, None), ("bounded", 2, 3)]
)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9])
def test_any_number_of_rows(archives, kind, low, high, rows):
    target = load(getattr(archives, kind), device="cpu")
    assert (target.module.low, target.module.high) == (low, high)
    given = torch.rand(rows, 3, 8, 8, generator=torch.Generator().manual_seed(rows))
    expected = network()(given).detach()
    assert torch.allclose(target(given), expected, atol=1e-5)
    assert torch.equal(target(given), target(given))


def test_reads_shape_and_classes(archives):
    target = load(f"pt2:{archives.dynamic}", device="cpu")
    assert target.input_shape == (3, 8, 8) and target.num_classes == 5
    assert target.name == archives.dynamic and target.access == "scores"


def test_preprocessing(archives):
    target = load(archives.dynamic, options={"mean": "0.5", "std": "0.25", "size": "8"}, device="cpu")
    given = torch.rand(2, 3, 16, 16)
    resized = nn.functional.interpolate(given, (8, 8), mode="bilinear", antialias=True)
    assert torch.allclose(target(given), network()((resized - 0.5) / 0.25).detach(), atol=1e-4)
    assert target.input_shape is None


def test_fingerprint_sees_weights_and_graph(archives, tmp_path):
    base = load(archives.dynamic, device="cpu").fingerprint()
    assert base == load(archives.dynamic, device="cpu").fingerprint()
    other = network()
    other[2] = nn.GELU()
    graph = export(tmp_path / "gelu.pt2", other, dim=Dim("batch"))
    weights = network()
    weights[0].bias.data += 1
    changed = export(tmp_path / "weights.pt2", weights, dim=Dim("batch"))
    assert len({base, *(load(p, device="cpu").fingerprint() for p in (graph, changed))}) == 3


def test_half_archive(tmp_path):
    rows = torch.rand(2, 3, 8, 8, dtype=torch.float16)
    path = export(tmp_path / "half.pt2", nn.Flatten(), rows=rows)
    answer = load(path, device="cpu")(torch.rand(3, 3, 8, 8))
    assert answer.dtype == torch.float32 and answer.shape == (3, 192)


class Logits(nn.Module):
    def forward(self, pixel_values):
        return {"logits": pixel_values.flatten(1)}


def test_answer_with_logits_and_a_keyword_input(tmp_path):
    program = torch.export.export(Logits(), (), {"pixel_values": torch.rand(2, 3, 8, 8)})
    torch.export.save(program, tmp_path / "logits.pt2")
    given = torch.rand(3, 3, 8, 8)
    assert torch.equal(load(str(tmp_path / "logits.pt2"), device="cpu")(given), given.flatten(1))


@pytest.mark.slow
def test_an_export_of_transformers_in_a_fresh_process(tmp_path):
    import subprocess
    import sys

    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, num_labels=7,
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    program = torch.export.export(model, (), {"pixel_values": torch.rand(2, 3, 32, 32)}, strict=False)
    torch.export.save(program, tmp_path / "vit.pt2")
    code = (
        "import torch\n"
        "from bbox.targets import load\n"
        f"t = load({str(tmp_path / 'vit.pt2')!r}, device='cpu')\n"
        "print(t.num_classes, t(torch.rand(5, 3, 32, 32)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "7 torch.Size([5, 7])" and "Traceback" not in done.stderr


def test_wrap_takes_an_exported_program():
    program = torch.export.export(network(), (torch.rand(2, 3, 8, 8),))
    target = wrap(program, name="mine", device="cpu")
    assert target(torch.rand(5, 3, 8, 8)).shape == (5, 5) and target.name == "mine"


@pytest.mark.parametrize("layer", [1, 3])
def test_training_mode_is_refused(tmp_path, layer):
    module = network()
    module[layer].train()
    path = export(tmp_path / "train.pt2", module)
    with pytest.raises(InputError, match=r"train.pt2 was exported in training mode \(.*call .eval\(\)"):
        load(path)


def test_training_mode_is_refused_after_decomposition(tmp_path):
    program = torch.export.export(network().train(), (torch.rand(2, 3, 8, 8),)).run_decompositions()
    torch.export.save(program, tmp_path / "train.pt2")
    with pytest.raises(InputError, match=r"was exported in training mode"):
        load(str(tmp_path / "train.pt2"))


def test_decomposed_eval_archive_loads(tmp_path):
    program = torch.export.export(network(), (torch.rand(2, 3, 8, 8),)).run_decompositions()
    torch.export.save(program, tmp_path / "eval.pt2")
    given = torch.rand(3, 3, 8, 8)
    assert torch.allclose(load(str(tmp_path / "eval.pt2"), device="cpu")(given), network()(given), atol=1e-5)


def test_two_inputs_are_refused(tmp_path):
    class Two(nn.Module):
        def forward(self, a, b):
            return a.flatten(1) + b.flatten(1)

    program = torch.export.export(Two(), (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)))
    torch.export.save(program, tmp_path / "two.pt2")
    with pytest.raises(InputError, match=r"takes 2 inputs, expected one batch of images"):
        load(str(tmp_path / "two.pt2"))


@pytest.mark.parametrize("rows", [torch.rand(2, 7), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)])
def test_inputs_that_are_no_images_are_refused(tmp_path, rows):
    path = export(tmp_path / "odd.pt2", nn.Flatten(), rows=rows)
    with pytest.raises(InputError, match=r"odd.pt2 takes \(2, .*expected float images"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, capfd, content):
    (tmp_path / "bad.pt2").write_bytes(content)
    with pytest.raises(InputError, match=r"bad.pt2 is not an archive of torch.export.save") as caught:
        load(str(tmp_path / "bad.pt2"))
    assert caught.value.exit_code == 4
    assert capfd.readouterr() == ("", "")


def test_other_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip.pt2", "w") as archive:
        archive.writestr("a/b", "c")
    torch.save({"a": torch.zeros(2)}, tmp_path / "state.pt2")
    with zipfile.ZipFile(tmp_path / "empty.pt2", "w"):
        pass
    for name in ("zip", "state", "empty"):
        with pytest.raises(InputError, match=r"is not an archive of torch.export.save"):
            load(str(tmp_path / f"{name}.pt2"))


def test_missing_file_and_unknown_option(archives):
    with pytest.raises(InputError, match=r"gone.pt2: no such file"):
        load("gone.pt2")
    with pytest.raises(UsageError, match=r"has no option 'sise'; did you mean 'size'"):
        load(archives.fixed, options={"sise": 3})


def test_an_archive_of_a_future_schema_is_one_line(archives, tmp_path, capfd):
    path = tmp_path / "future.pt2"
    with zipfile.ZipFile(archives.fixed) as old, zipfile.ZipFile(path, "w") as new:
        for record in old.infolist():
            data = old.read(record)
            if record.filename.endswith("models/model.json"):
                graph = json.loads(data)
                graph["schema_version"]["major"] = 999
                data = json.dumps(graph).encode()
            new.writestr(record.filename, data)
    with pytest.raises(InputError, match=r"does not load with torch.export.load") as caught:
        load(str(path))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err
