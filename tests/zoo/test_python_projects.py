"""The corpus of installed Python, and the victims trained on it."""

import ast

import pytest
import torch

from bbox.errors import InputError
from bbox.zoo import DATA, TARGETS
from bbox.zoo.code_samples import load_code_samples
from bbox.zoo.python_code import functions_of, shuffled_files
from bbox.zoo.python_projects import PROJECTS, split_projects

SOURCE = '''
import os


def documented(path):
    """Prose.

    More prose.
    """
    name = os.path.basename(path)
    stem, _ = os.path.splitext(name)
    return stem


def short(x):
    return x


def only_prose():
    """Line.

    Line.

    Line.
    """


class Thing:
    @property
    def decorated(self):
        """Prose."""
        first = self.a
        second = self.b
        return first + second

    def outdented(self):
        text = """
left
"""
        more = text * 2
        return more


async def waits(source):
    async for item in source:
        if item:
            yield item
'''


def test_functions(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    found = {function.name: function for function in functions_of("pkg/module.py", path)}
    assert list(found) == ["documented", "decorated", "waits"]
    assert found["documented"].code == (
        "def documented(path):\n    name = os.path.basename(path)\n"
        "    stem, _ = os.path.splitext(name)\n    return stem\n"
    )
    assert found["decorated"].code.startswith("@property\ndef decorated(self):\n    first")
    assert found["waits"].file == "pkg/module.py"
    path.write_text("def broken(:\n")
    assert list(functions_of("x", path)) == []


def test_files_are_the_project_s_own():
    names = [name for name, _ in shuffled_files("networkx")]
    assert len(names) == len(set(names)) > 200 and names != sorted(names)
    assert names == [name for name, _ in shuffled_files("networkx")]
    assert not [name for name in names if "/tests/" in name]
    with pytest.raises(ModuleNotFoundError, match="no package 'no_such_package'"):
        shuffled_files("no_such_package")


def test_split_by_file():
    split = split_projects(60, 20)
    assert split.classes == PROJECTS
    assert [label for _, label in split.held_out] == [label for label in range(6) for _ in range(20)]
    assert not {f.file for f, _ in split.training} & {f.file for f, _ in split.held_out}
    codes = [function.code for function, _ in (*split.training, *split.held_out)]
    assert len(codes) == len(set(codes)) == 480
    for code in codes:
        (node,) = ast.parse(code).body
        assert ast.get_docstring(node) is None


@pytest.mark.parametrize(("name", "classes", "right"), [("python-projects", 6, 0.8), ("python-modules", 28, 0.75)])
def test_victims(name, classes, right):
    pytest.importorskip("sklearn")
    target, data = TARGETS[name].load(), DATA[name].load()
    scores = target(data.inputs)
    assert target.class_names == data.class_names and target.num_classes == TARGETS[name].num_classes == classes
    torch.testing.assert_close(scores.sum(1), torch.ones(len(data)))
    assert (scores.argmax(1) == data.labels).float().mean() > right  # .852 both, with the packages of this repository
    assert torch.equal(target(data.inputs[:1]), scores[:1])
    assert len(set(data.ids)) == len(data) and data.labels.bincount().unique().numel() == 1
    assert {program.language for program in data.inputs} == {"python"} == {target.language}
    with pytest.raises(InputError, match="reads python, and the data hold c"):
        target(load_code_samples().inputs[:1])


def test_samples():
    data = DATA["code-samples"].load()
    assert data.labels.bincount().tolist() == [15, 15, 15] and len(set(data.inputs.codes())) == 45
    assert [program.language for program in data.inputs] == [data.class_names[label] for label in data.labels]


@pytest.mark.parametrize("language", ["c", "java"])
def test_samples_parse(language):
    pytest.importorskip("tree_sitter")
    from bbox.code.languages import parser

    for program in load_code_samples().inputs:
        if program.language == language:
            # Java's methods stand alone in data sets of code; tree-sitter reads them so.
            assert not parser(language).parse(program.code.encode()).root_node.has_error, program.code
