"""JSONL, CSV and Google Code Jam rows: what is read, what is refused, and the bytes that are written back."""

import json
import sysconfig
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbox.code import Program
from bbox.data import CodeSet, load
from bbox.data.code import load_code
from bbox.errors import InputError, UsageError

STDLIB = Path(sysconfig.get_paths()["stdlib"])


def write(path, *rows, **dump):
    path.write_text("".join(json.dumps(row, **dump) + "\n" for row in rows), encoding="utf-8")
    return path


def back(data, folder, changed=None):
    """All programs, those in ``changed`` with new code, written and read again."""
    changed = changed or {}
    chosen = [
        (index, replace(program, code=changed.get(index, program.code)))
        for index, program in zip(data.indices.tolist(), data.inputs, strict=True)
    ]
    return data.origin.write(folder / "out", chosen), [program for _, program in chosen]


def test_codexglue_defects(tmp_path):
    path = write(
        tmp_path / "test.jsonl",
        {"project": "qemu", "target": 1, "func": "int f(void)\n{\n}\n", "idx": 7},
        {"project": "ffmpeg", "target": 0, "func": "int g;", "idx": 7},
    )
    data = load(f"code:{path},language=c")
    assert isinstance(data, CodeSet) and data.name == f"code:{path},language=c"
    assert list(data.inputs) == [Program("int f(void)\n{\n}\n", "c"), Program("int g;", "c")]
    assert (data.labels.tolist(), data.ids, data.class_names) == ([1, 0], ("7", "7"), None)
    target, _ = back(data.take([1]), tmp_path, {1: "int h;"})
    assert target.name == "test.jsonl"
    assert target.read_text() == '{"project": "ffmpeg", "target": 0, "func": "int h;", "idx": 7}\n'


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([2, 0, 1], [2, 0, 1], None),
        (["2", " 0", "1.0"], [2, 0, 1], None),
        ([2.0, 0.0, 1.0], [2, 0, 1], None),
        ([True, False, True], [1, 0, 1], ("false", "true")),
        (["torch", "numpy", "torch"], [1, 0, 1], ("numpy", "torch")),
        ([None, None, None], None, None),
    ],
)
def test_labels(tmp_path, labels, numbers, names):
    rows = [{"code": "a", "label": label, "language": "Python"} for label in labels]
    data = load(str(write(tmp_path / "a.jsonl", *rows)))
    assert (data.labels is None and numbers is None) or data.labels.tolist() == numbers
    assert data.class_names == names


def test_language_of_each_row(tmp_path):
    rows = [
        {"content": "a", "lang": "C++"},
        {"content": "b", "path": "x/y.go"},
        {"content": "c", "path": "x.go", "language": "js"},
    ]
    path = write(tmp_path / "a.jsonl", *rows)
    assert [program.language for program in load(str(path)).inputs] == ["cpp", "go", "javascript"]
    assert {program.language for program in load(f"code:{path},language=java").inputs} == {"java"}


def test_named_fields_and_pairs(tmp_path):
    row = {"text": "words", "old": "a", "new": "b", "same": "yes", "language": "c"}
    path = write(tmp_path / "a.jsonl", row)
    data = load(f"code:{path},code=old,partner=new,label=same")
    assert (data.inputs[0], data.class_names) == (Program("a", "c", "b"), ("yes",))
    assert load(f"code:{path},code=old,label=none").labels is None

    path = write(tmp_path / "b.jsonl", {"id1": 3, "id2": "x", "code1": "a", "code2": "b", "label": 1})
    data = load(f"code:{path},language=java")
    assert (data.inputs[0], data.ids, data.labels.tolist()) == (Program("a", "java", "b"), ("3 x",), [1])
    target, _ = back(data, tmp_path, {0: "c"})
    assert json.loads(target.read_text()) == {"id1": 3, "id2": "x", "code1": "c", "code2": "b", "label": 1}


# What a careless writer changes: spacing, numbers, escapes, repeated keys, byte order mark, line ends, blank lines.
ODD = [
    b'{"func" :"a\\/b","target":1.0e0 , "x":12345678901234567890123, "language":"c"}\n',
    b'\t{ "func": "old", "func": "b", "target": 0, "nested": {"func": "no", "l": [1, {}]}, "language": "c" } \r\n',
    '{"func": "é", "target": 1, "language": "c"}\n'.encode(),
    b'{"func": "\\u00e9", "target": 1, "language": "c"}',
]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_bytes_of_json_stay(tmp_path, mark):
    path = tmp_path / "odd.jsonl"
    path.write_bytes(mark + b"".join(ODD))
    data = load(str(path))
    assert data.inputs.codes() == ["a/b", "b", "é", "é"]
    target, _ = back(data, tmp_path)
    assert target.read_bytes() == path.read_bytes()
    target, _ = back(data, tmp_path, dict.fromkeys(range(4), '"ü\n'))
    new, escaped = '"\\"ü\\n"', b'"\\"\\u00fc\\n"'
    assert target.read_bytes() == mark + b"".join(
        [
            ODD[0].replace(b'"a\\/b"', escaped),
            ODD[1].replace(b'"b"', escaped),
            ODD[2].replace('"é"'.encode(), new.encode()),
            ODD[3].replace(b'"\\u00e9"', escaped),
        ]
    )


def test_blank_lines_and_order(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n{"code": "a"}\n  \n{"code": "b"}')
    data = load(f"code:{path},language=c").take([1, 0])
    target, _ = back(data, tmp_path)
    assert target.read_bytes() == b'{"code": "b"}\n{"code": "a"}\n'


@pytest.mark.parametrize("dialect", ["plain", "quoted", "semicolon", "tabs"])
def test_csv(tmp_path, dialect):
    comma = {"semicolon": ";", "tabs": "\t"}.get(dialect, ",")
    cells = [["code", "note", "label"], ["int a;\nint b;", 'say "x"', "yes"], ["c", "", "no"]]
    quote = dialect == "quoted"

    def cell(text):
        bare = not (quote or any(c in text for c in '"\n' + comma))
        return text if bare else '"' + text.replace('"', '""') + '"'

    content = "".join(comma.join(map(cell, row)) + "\r\n" for row in cells)
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    data = load(f"code:{path},language=c")
    assert data.inputs.codes() == ["int a;\nint b;", "c"]
    assert (data.labels.tolist(), data.class_names) == ([1, 0], ("no", "yes"))
    target, _ = back(data, tmp_path)
    assert target.read_bytes() == path.read_bytes()
    target, _ = back(data, tmp_path, {0: "z"})  # a cell that was quoted stays quoted
    assert target.read_bytes() == path.read_bytes().replace(b"int a;\nint b;", b"z")
    target, _ = back(data, tmp_path, {1: f'x{comma}"\n'})
    assert target.read_bytes() == path.read_bytes().replace(
        f"{cell('c')}{comma}{cell('')}".encode(), f'"x{comma}""\n"{comma}{cell("")}'.encode()
    )


def test_a_csv_without_code_is_no_code(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("file,label\na.png,1\n")
    with pytest.raises(InputError, match=r"a.csv: not a kind of data that is read"):
        load(str(path))
    with pytest.raises(InputError, match=r"line 2 has no code; it has 'file', 'label': name one, as in code:"):
        load(f"code:{path},format=csv")


def test_cells_longer_than_the_csv_module_allows(tmp_path):
    import csv

    path = tmp_path / "a.csv"
    path.write_text("code\n" + "x" * 200_000 + "\n")
    assert len(load(f"code:{path},language=c").inputs[0].code) == 200_000
    assert csv.field_size_limit() == 131072


GCJ = r"print 'a\n' \\n  x = 1 # it's\n  '''two\nlines'''\n <CODESPLIT> 1" + "\n" + r"y\n <CODESPLIT> 0" + "\r\n"


@pytest.mark.parametrize(
    ("escapes", "first"),
    [
        ("strings", "print 'a\\n' \\\n  x = 1 # it's\n  '''two\nlines'''\n"),
        ("all", "print 'a\n' \\\n  x = 1 # it's\n  '''two\nlines'''\n"),
        ("none", r"print 'a\n' \\n  x = 1 # it's\n  '''two\nlines'''\n"),
    ],
)
def test_google_code_jam(tmp_path, escapes, first):
    path = tmp_path / "valid.txt"
    path.write_bytes(GCJ.encode())
    (tmp_path / "classes.txt").write_text("0\tana\n1\tbob\n")
    data = load(f"code:{path},language=python,escapes={escapes}")
    assert data.inputs[0].code == first
    assert (data.labels.tolist(), data.class_names) == ([1, 0], ("ana", "bob"))
    target, _ = back(data, tmp_path)
    assert target.read_bytes() == path.read_bytes()
    target, programs = back(data, tmp_path, {0: first.replace("x", "count")})
    assert target.read_bytes() == path.read_bytes().replace(b" x ", b" count ")
    assert list(load(f"code:{target},language=python,escapes={escapes}").inputs) == programs


def test_google_code_jam_in_c(tmp_path):
    path = tmp_path / "valid.txt"
    path.write_text(r"""char c = '\n'; // it's\n/* don't\n */ s = "a\n\"";\n <CODESPLIT> 0""")
    code = load(f"code:{path},language=cpp").inputs[0].code
    assert code == "char c = '\\n'; // it's\n/* don't\n */ s = \"a\\n\\\"\";\n"


def test_google_code_jam_cannot_hold_every_program(tmp_path):
    path = tmp_path / "valid.txt"
    path.write_bytes(GCJ.encode())
    data = load(f"code:{path},language=python")
    with pytest.raises(InputError, match="its format cannot hold this program"):
        back(data, tmp_path, {1: r"y = a\n"})


def test_alerts_substitutes(tmp_path):
    rows = [{"code": r"a = 1\nprint('\n')\n", "substitutes": {"a": ["b"]}}]
    path = write(tmp_path / "subs.jsonl", *rows)
    data = load(f"code:{path},language=python")
    assert (data.inputs.codes(), data.labels) == (["a = 1\nprint('\\n')\n"], None)
    target, _ = back(data, tmp_path, {0: "b = 1\nprint('\\n')\n"})
    assert json.loads(target.read_text())["code"] == rows[0]["code"].replace("a =", "b =")
    # An escape in a row that ALERT did not write is part of the program.
    path = write(tmp_path / "one.jsonl", {"code": rows[0]["code"]})
    assert load(f"code:{path},language=python").inputs.codes() == [rows[0]["code"]]


CODE = st.text(st.characters(codec="utf-8"), max_size=30)


@settings(max_examples=40)
@given(st.lists(st.tuples(CODE, CODE, st.booleans()), min_size=1, max_size=6), st.booleans(), st.sampled_from("jct"))
def test_round_trip(tmp_path_factory, rows, ascii_only, kind):
    """What was written reads as the programs given, and rows that did not change keep their bytes."""
    import csv
    import io

    folder = tmp_path_factory.mktemp("rows")
    if kind == "j":
        path = write(folder / "a.jsonl", *({"n": 1.5, "code": old} for old, _, _ in rows), ensure_ascii=ascii_only)
    else:
        text = io.StringIO(newline="")
        style = csv.writer(text, delimiter=",;"[ascii_only], quoting=(csv.QUOTE_MINIMAL, csv.QUOTE_ALL)[kind == "t"])
        style.writerows([["n", "code"], *(["1.5", old] for old, _, _ in rows)])
        path = folder / "a.csv"
        path.write_bytes(text.getvalue().encode())
    data = load_code(path, language="c")
    assert data.inputs.codes() == [old for old, _, _ in rows]
    target, _ = back(data, folder)
    assert target.read_bytes() == path.read_bytes()
    target, programs = back(data, folder, {i: new for i, (_, new, change) in enumerate(rows) if change})
    assert list(load_code(target, language="c").inputs) == programs
    if kind == "j":
        before, after = path.read_bytes().split(b"\n"), target.read_bytes().split(b"\n")
        assert all(a == b for a, b, (_, _, change) in zip(before, after, rows, strict=False) if not change)


def test_the_standard_library_as_rows(tmp_path):
    """Real sources, as JSONL, CSV and in ALERT's format."""
    import csv

    codes = [file.read_text("utf-8") for file in sorted(STDLIB.glob("[a-d]*.py"))][:40]
    lines = write(tmp_path / "a.jsonl", *({"code": code, "label": i % 3} for i, code in enumerate(codes)))
    table = tmp_path / "a.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["label", "code"], *([i % 3, code] for i, code in enumerate(codes))])
    jam = tmp_path / "a.txt"
    jam.write_text("".join(code.replace("\n", "\\n") + " <CODESPLIT> 0\n" for code in codes), "utf-8", newline="\n")
    for path in (lines, table, jam):
        data = load(f"code:{path},language=python")
        assert path is jam or data.inputs.codes() == codes
        target, programs = back(data, tmp_path, {3: data.inputs[3].code.replace("self", "this")})
        assert list(load(f"code:{target},language=python").inputs) == programs
        assert back(data, tmp_path)[0].read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("content", "options", "error", "message"),
    [
        (b"", "", InputError, "no examples in it"),
        (b"\n \n", "", InputError, "no examples in it"),
        (b'{"code": "a"}\n{"code": \n', ",language=c", InputError, r"line 2 is no JSON \(Expecting value at column 1"),
        (b'{"code": "a"}\n["a"]\n', ",language=c", InputError, r"line 2 is '\[\"a\"\]', expected an object"),
        (b'{"code": "a"}\n{"code": "\xff"}\n', ",language=c", InputError, r"line 2 is not UTF-8 \(byte 10: invalid"),
        (b"[" * 100_000, "", InputError, "line 1 is no JSON"),
        (b'{"fnc": "a", "y": 1}', "", InputError, "line 1 has no code; it has 'fnc', 'y': name one, as in code:"),
        (b'{"fnc": "a"}', ",code=func", UsageError, r"line 1 has no 'func' \(code=func\); did you mean 'fnc'\?"),
        (b'{"func": "a"}', ",label=y", UsageError, r"line 1 has no 'y' \(label=y\); it has 'func'"),
        (b'{"code": "a"}\n{"cod": "a"}', ",language=c", InputError, "line 2 has no 'code'; it has 'cod'"),
        (b'{"code": 3}', ",language=c", InputError, "line 1: the code is a int, expected text"),
        (b'{"code": "\\ud800"}', ",language=c", InputError, "line 1: the code has a lone surrogate at character 0"),
        (b'{"code": "' + b"x" * 1_000_001 + b'"}', ",language=c", InputError, "has 1000001 bytes, more than 1000000"),
        (b'{"code": "a"}', "", InputError, "line 1: nothing says the language; give one, as in code:.*,language=c"),
        (b'{"code": "a", "language": "cobol"}', "", InputError, "language is 'cobol'; known are: python, java"),
        (b'{"code": "a"}', ",language=pyton", UsageError, "unknown language 'pyton'; did you mean 'python'"),
        (b'{"code": "a", "label": 1}\n{"code": "a"}', ",language=c", InputError, "row 2 has no label, but others do"),
        (
            b'{"code": "a", "label": 1}\n{"code": "a", "label": "x"}',
            ",language=c",
            InputError,
            "row 2 has the label 'x' beside 1; expected all whole numbers, all names or all true/false",
        ),
        (b'{"code": "a", "label": [1]}', ",language=c", InputError, r"row 1 has the label '\[1\]'; expected"),
        (b'{"code": "a", "label": -1}', ",language=c", InputError, "label -1 is negative"),
        (b"{}", ",langauge=c", UsageError, "has no option 'langauge'; did you mean 'language'"),
        (b"{}", ",format=json", UsageError, "format is 'json', expected auto, jsonl, csv, gcj, pairs, files"),
        (b"{}", ",escapes=some", UsageError, "escapes is 'some', expected auto, none, strings, all"),
    ],
)
def test_refuses(tmp_path, content, options, error, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        load(f"code:{path}{options}")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value) + f"{path}" * ("unknown" in message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("code,label\na,1\nb\n", r"line 3 has 1 cells, but there are 2 columns \(code, label\)"),
        ("code,code\na,1\n", "two columns are called 'code'"),
        ('code,label\na,1\n"b,1\n', r"the row that starts at line 3 is no CSV \(unexpected end of data\)"),
        ("code,label\n", "no examples in it"),
    ],
)
def test_refuses_tables(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load(f"code:{path},language=c")


def test_refuses_a_table_that_is_not_utf8(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"code,label\n" + b"a,1\n" * 10_000 + b"\xff,1\n")
    with pytest.raises(InputError, match=r"line 10002 is not UTF-8 \(byte 0: invalid start byte\)"):
        load(f"code:{path},language=c")
    path.write_bytes(b"\xff\n")
    with pytest.raises(InputError, match=r"line 1 is not UTF-8"):
        load(f"code:{path},format=csv")


def test_refuses_jam(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a <CODESPLIT> 1\nb\n")
    with pytest.raises(InputError, match="line 2 has no ' <CODESPLIT> ', expected: code <CODESPLIT> label"):
        load(f"code:{path},language=c")


def test_a_source_that_changed(tmp_path):
    path = write(tmp_path / "a.jsonl", {"code": "a"}, {"code": "b"})
    data = load(f"code:{path},language=c")
    with pytest.raises(UsageError, match=r"a.jsonl is the data that was read; write it to another folder"):
        data.origin.write(tmp_path, [(0, data.inputs[0])])
    write(path, {"code": "x"}, {"code": "b"})
    with pytest.raises(InputError, match=r"a.jsonl changed since it was read; load it again"):
        back(data, tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"a.jsonl cannot be read again"):
        back(data, tmp_path)


def test_image_options_are_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", {"code": "a", "language": "c"})
    with pytest.raises(UsageError, match="is code, which has no image size; leave 32 out"):
        load(str(path), size=32)
    with pytest.raises(UsageError, match="is code, which has its labels within"):
        load(str(path), labels=path)
    with pytest.raises(UsageError, match="'code:' ends after its kind"):
        load("code:")
    with pytest.raises(InputError, match=r"gone: no such file or folder; expected a .jsonl"):
        load("code:gone")


def test_indices_survive_a_selection(tmp_path):
    path = write(tmp_path / "a.jsonl", *({"code": f"int a{i};", "language": "c"} for i in range(20)))
    data = load(str(path)).select(limit=5, seed=1)
    target, programs = back(data, tmp_path, {int(data.indices[2]): "int b;"})
    assert list(load(str(target)).inputs) == programs
    assert textwrap.shorten(programs[2].code, 10) == "int b;"
