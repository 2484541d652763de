"""Folders of sources, single files, pairs by id: read, refused and written back."""

import json
import shutil
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from bbox.code import Program
from bbox.data import CodeSet, Dataset, load
from bbox.errors import InputError, UsageError

STDLIB = Path(sysconfig.get_paths()["stdlib"])


def put(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_folders_are_classes(tmp_path):
    put(tmp_path / "d", b__x_c=b"int x;", a__deep__y_java=b"class Y {}", a__z_py=b"z = 1", b__readme_md=b"no")
    (tmp_path / "d/.git").mkdir()
    (tmp_path / "d/.git/hook.py").write_text("no")
    for spec in (str(tmp_path / "d"), f"code:{tmp_path / 'd'}"):
        data = load(spec)
        assert isinstance(data, CodeSet) and data.name == spec
        assert data.ids == ("a/deep/y.java", "a/z.py", "b/x.c")
        assert [program.language for program in data.inputs] == ["java", "python", "c"]
        assert (data.labels.tolist(), data.class_names) == ([0, 0, 1], ("a", "b"))
    assert load(f"code:{tmp_path / 'd'},language=c,label=none").ids == ("b/x.c",)


def test_numbered_folders_and_other_endings(tmp_path):
    put(tmp_path, **{"3__a_txt": b"int a;", "1__b_txt": b"int b;"})
    data = load(f"code:{tmp_path},language=c++")
    assert (data.labels.tolist(), data.class_names) == ([1, 3], None)
    assert {program.language for program in data.inputs} == {"cpp"}
    put(tmp_path, **{"1__c_hpp": b"", "1__d_h": b"", "1__e_py": b""})
    assert load(f"code:{tmp_path},language=cpp,label=none").ids == ("1/c.hpp", "1/d.h")
    with pytest.raises(InputError, match="no source files"):
        load(f"code:{put(tmp_path / 'x', a_txt=b'')}")
    with pytest.raises(InputError, match=r"no go files found; 1 other files are in it"):
        load(f"code:{put(tmp_path / 'y', a_py=b'')},language=go")


def test_a_flat_folder_and_one_file(tmp_path):
    put(tmp_path, b_py=b"b = 1", a_py=b"")
    data = load(str(tmp_path))
    assert (data.ids, data.labels, data.inputs.codes()) == (("a.py", "b.py"), None, ["", "b = 1"])
    data = load(str(tmp_path / "b.py"))
    assert list(data.inputs) == [Program("b = 1", "python")] and data.ids == ("b.py",)
    target = data.origin.write(tmp_path / "out", [(0, Program("c = 1", "python"))])
    assert target == tmp_path / "out/b.py" and target.read_text() == "c = 1"


def test_bytes_stay(tmp_path):
    files = {"a__x_c": b"\xef\xbb\xbfint x;\r\n", "b__y_c": "char *é;\r\r\n\n".encode()}
    data = load(str(put(tmp_path / "d", **files)))
    assert data.inputs.codes() == ["int x;\r\n", "char *é;\r\r\n\n"]
    chosen = list(zip(data.indices.tolist(), data.inputs, strict=True))
    target = data.origin.write(tmp_path / "out", chosen)
    assert [file.read_bytes() for file in sorted(target.rglob("*.c"))] == list(files.values())
    target = data.origin.write(tmp_path / "new", [(0, Program("int z;\r\n", "c"))])
    assert [file.read_bytes() for file in target.rglob("*.c")] == [b"\xef\xbb\xbfint z;\r\n"]
    assert load(str(target)).inputs.codes() == ["int z;\r\n"]
    with pytest.raises(UsageError, match="is the data that was read"):
        data.origin.write(tmp_path / "d", chosen)


def test_images_stay_images(tmp_path):
    Image.new("RGB", (8, 8)).save(put(tmp_path, make_py=b"draw()") / "a.png")
    assert isinstance(load(str(tmp_path)), Dataset)
    assert load(f"code:{tmp_path}").ids == ("make.py",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a_c": b"int \xff;"}, r"a.c: not UTF-8 text \(byte 4: invalid start byte\)"),
        ({"a_c": b"x" * 1_000_001}, r"a.c: 1000001 bytes, more than 1000000; leave it out"),
        ({"a_c": b"", "x__b_c": b""}, r"1 sources lie beside class folders, for example a.c; .*label=none"),
        ({"y__a_c": b"", "x__b_txt": b""}, "the class folder 'x' holds no source"),
        ({}, "no source files"),
    ],
)
def test_refuses(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        load(f"code:{put(tmp_path, **files)}")


def test_options_of_other_formats_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"has no option 'code'; it takes language, label"):
        load(f"code:{put(tmp_path, a_c=b'')},code=func")
    with pytest.raises(UsageError, match="is a folder, which format=jsonl does not read"):
        load(f"code:{tmp_path},format=jsonl")
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"a.bin: not a kind of code data that is told by its name; give format="):
        load(f"code:{tmp_path / 'a.bin'}")


def test_a_real_tree(tmp_path):
    """Packages of the standard library as classes, written back and read again."""
    for name in ("json", "email", "asyncio"):
        shutil.copytree(STDLIB / name, tmp_path / "d" / name, ignore=shutil.ignore_patterns("__pycache__"))
    data = load(str(tmp_path / "d"))
    assert data.class_names == ("asyncio", "email", "json") and len(data) > 50
    chosen = [(int(i), p) for i, p in zip(data.indices, data.inputs, strict=True)][::2]
    again = load(str(data.origin.write(tmp_path / "out", chosen)))
    assert list(again.inputs) == [program for _, program in chosen]
    assert all((tmp_path / "out" / name).read_bytes() == (tmp_path / "d" / name).read_bytes() for name in again.ids)


@pytest.fixture
def clones(tmp_path):
    functions = [{"func": f"int f{i}() {{ }}", "idx": str(10 + i), "extra": [i]} for i in range(4)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in functions))
    path = tmp_path / "test.txt"
    path.write_bytes(b"10\t12\t1\n10\t11\t0\r\n12\t10\t1")
    return path


def test_pairs(clones, tmp_path):
    data = load(f"code:{clones},language=java")
    assert data.ids == ("10 12", "10 11", "12 10") and data.labels.tolist() == [1, 0, 1]
    assert data.inputs[1] == Program("int f0() { }", "java", "int f1() { }")
    chosen = list(zip(data.indices.tolist(), data.inputs, strict=True))
    target = data.origin.write(tmp_path / "same", chosen)
    assert target.read_bytes() == clones.read_bytes()
    lines = (tmp_path / "data.jsonl").read_bytes().splitlines(keepends=True)
    assert (tmp_path / "same/data.jsonl").read_bytes() == b"".join(lines[:3])  # of those that pairs name

    # One function changed in two pairs in two ways, and as it was where it is the second.
    changed = [(i, replace(p, code=p.code.replace("f", f"g{i}"))) for i, p in chosen[:2]] + chosen[2:]
    target = data.origin.write(tmp_path / "new", changed)
    assert target.read_bytes() == b"10_adv0\t12\t1\n10_adv1\t11\t0\r\n12\t10\t1"
    again = load(f"code:{target},language=java")
    assert list(again.inputs) == [program for _, program in changed]
    written = [json.loads(line) for line in (tmp_path / "new/data.jsonl").read_text().splitlines()]
    assert written[-1] == {"func": "int g10() { }", "idx": "10_adv1", "extra": [0]}
    assert data.take([2]).origin is data.origin


def test_pairs_beside_another_file(clones, tmp_path):
    (tmp_path / "data.jsonl").rename(tmp_path / "functions.jsonl")
    with pytest.raises(InputError, match="not a kind of data that is read"):
        load(str(clones))
    with pytest.raises(InputError, match=r"data.jsonl: no such file"):
        load(f"code:{clones},format=pairs,language=c")
    data = load(f"code:{clones},format=pairs,language=c,data={tmp_path / 'functions.jsonl'},label=none")
    assert len(data) == 3 and data.labels is None


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (b"10\t12\t1\n10\t99\t1\n", r"test.txt: line 2 names '99', which is not in .*data.jsonl"),
        (b"10\t12\t1\n10 12 1\n", r"test.txt: line 2 is '10 12 1', expected id1, id2, label \(tabs\)"),
        (b"10\t12\t1\n10\t12\n", "row 2 has no label"),
        (b"\n", "no pairs in it"),
    ],
)
def test_refuses_pairs(clones, pairs, message):
    clones.write_bytes(pairs)
    with pytest.raises(InputError, match=message):
        load(f"code:{clones},format=pairs,language=c")


def test_refuses_functions_without_ids(clones, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"func": "a"}\n')
    with pytest.raises(InputError, match=r"data.jsonl: line 1 has no 'idx', which pairs are named by"):
        load(f"code:{clones},language=c")
