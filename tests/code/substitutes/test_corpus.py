"""Names of real programs, by class and by likeness."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bbox.code import Program, Programs
from bbox.code.site import Site, site_of
from bbox.code.substitutes import Corpus, load_provider
from bbox.code.substitutes.embedding import NameVectors
from bbox.code.substitutes.lexer import lex, subwords
from bbox.code.substitutes.names import BoundNames, bound_names
from bbox.errors import UsageError


@pytest.fixture(autouse=True)
def _no_common_names(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The corpora here are small; what is put behind their names has a test of its own."""
    if "common" not in request.node.name:
        monkeypatch.setattr("bbox.code.substitutes.corpus._FEW", 0)


def test_common_names_stand_behind_those_of_a_few_programs() -> None:
    corpus = Corpus(Programs([Program("def f(alpha, size):\n    return alpha\n", "python")]), torch.tensor([0]))
    names = load_provider("corpus", corpus=corpus).suggest(site_of(corpus.programs[0]), avoid=0)
    assert len(names) == 2 and names[0][:2] == ["value", "values"], "its own names are no new ones"
    other = site_of(Program("def g(size):\n    return size\n", "python"))
    first = load_provider("corpus", corpus=corpus).suggest(other, avoid=0)[0]
    assert first[:2] == ["alpha", "value"] and "size" not in first


def _function(*names: str) -> Program:
    body = "".join(f"    {name} = {name} + 1\n" for name in names)
    return Program(f"def f({', '.join(names)}):\n{body}    return {names[0]}\n", "python")


CORPUS = Corpus(
    Programs(
        [
            _function("own", "both", "plain"),
            _function("own", "both"),
            _function("both", "left", "rare"),
            _function("left", "both"),
            _function("left", "right"),
            _function("right", "left"),
            _function("right", "plain"),
        ]
    ),
    torch.tensor([0, 0, 1, 1, 1, 2, 2]),
)


@pytest.fixture
def site() -> Site:
    return site_of(_function("victim", "other"))


def test_names_are_counted_by_class() -> None:
    assert bound_names(_function("a", "b")) == ["a", "b"]
    counted = BoundNames.of(CORPUS)
    assert counted.names == ("both", "left", "own", "plain", "rare", "right")
    assert counted.counts.tolist() == [[2, 0, 2, 1, 0, 0], [2, 3, 0, 0, 1, 1], [0, 1, 0, 1, 0, 2]]
    assert counted.sizes.tolist() == [2, 3, 2]
    assert counted.frequent(2) == ("both", "left", "right", "own", "plain")


def test_log_odds_by_hand() -> None:
    odds = BoundNames.of(CORPUS).log_odds(np.array([1, 2]), 0)
    # "left": 4 of 5 programs against 0 of 2.
    assert odds[1] == pytest.approx(np.log(4.5 / 1.5) - np.log(0.5 / 2.5))


@pytest.mark.parametrize(
    ("spec", "avoid", "wanted", "expected"),
    [
        ("corpus,rank=class", 0, None, ["left", "right", "plain", "both"]),
        ("corpus,rank=class", 0, 2, ["right", "left", "plain"]),
        ("corpus,rank=class", 1, None, ["own", "plain", "right", "both", "left"]),
        ("corpus,rank=class,programs=1", 2, 1, ["both", "left", "rare", "right"]),
        ("corpus,rank=class,limit=1", 0, None, ["left"]),
    ],
)
def test_telling_names_come_first(
    site: Site, spec: str, avoid: int | None, wanted: int | None, expected: list[str]
) -> None:
    assert load_provider(spec, corpus=CORPUS).suggest(site, avoid=avoid, wanted=wanted) == [expected] * 2


def test_the_rival_is_the_class_with_the_same_tokens() -> None:
    provider = load_provider("corpus,rank=rival", corpus=CORPUS)
    # "rare" stands in class 1 alone; then come the names of the rest, as rank=class has them.
    assert provider.suggest(site_of(_function("rare", "v")), avoid=0)[0] == ["left", "right", "both", "plain"]
    own = site_of(Program("def own(v):\n    return own(own(v))\n", "python"))
    assert provider.suggest(own, avoid=1) == [["plain", "both", "right", "left"]]
    right = site_of(Program("def right(v):\n    return right(right(v))\n", "python"))
    assert provider.suggest(right, avoid=1) == [["plain", "left", "own", "both"]]


def test_without_labels_or_classes_every_name_is_taken(site: Site) -> None:
    for spec, corpus in (("corpus,rank=random", Corpus(CORPUS.programs)), ("random", CORPUS)):
        lists = load_provider(spec, corpus=corpus).suggest(site, avoid=0)
        assert [sorted(names) for names in lists] == [["both", "left", "own", "plain", "right"]] * 2


def test_names_that_the_program_has_are_left_out() -> None:
    lists = load_provider("corpus,rank=class", corpus=CORPUS).suggest(site_of(_function("right", "victim")), avoid=0)
    assert lists == [["left", "plain", "both"]] * 2


@pytest.mark.parametrize("spec", ["corpus", "corpus,rank=class", "corpus,rank=rival", "corpus,rank=random", "random"])
def test_suggestions_depend_on_the_program_and_the_seed_alone(site: Site, spec: str) -> None:
    first = load_provider(spec, corpus=CORPUS, seed=3)
    second = load_provider(spec, corpus=Corpus(CORPUS.programs, CORPUS.labels), seed=3)
    second.suggest(site_of(_function("another")), avoid=1)
    assert first.suggest(site, avoid=0) == second.suggest(site, avoid=0)
    assert first.fingerprint() == second.fingerprint() != load_provider(spec, corpus=CORPUS, seed=4).fingerprint()


def _real() -> Corpus:
    """Two kinds of functions, whose names are told apart by what stands beside them."""
    loops = [
        f"def f({path}, n):\n    for {i} in range(n):\n        print({i}, {path})\n        open({path}).read()\n"
        for i in ("i", "j", "k", "index") for path in ("path", "filename", "source_file")
    ]  # fmt: skip
    return Corpus(Programs([Program(code, "python") for code in loops]))


def test_names_are_alike_that_stand_among_the_same_tokens() -> None:
    corpus = _real()
    vectors = NameVectors.learn(corpus.programs, dimension=8)
    near = vectors.matrix(["j", "path", "filename"]) @ vectors.vector("i")
    assert near[0] > 0.9 > near[1:].max()
    # Unknown names are read by their sub-words, and what has none of them is like nothing.
    assert vectors.vector("theSourceFile") @ vectors.vector("path") > 0.9
    assert not vectors.vector("zzz").any()
    again = NameVectors.learn(corpus.programs, dimension=8)
    assert np.array_equal(vectors.rows, again.rows)


@pytest.mark.parametrize("spec", ["embedding,dimension=8", "corpus,rank=similarity"])
def test_nearest_names_come_first(spec: str) -> None:
    site = site_of(Program("def f(n):\n    for source_path in n:\n        open(source_path)\n", "python"))
    lists = load_provider(spec, corpus=_real()).suggest(site)
    assert set(lists[1][:2]) <= {"path", "filename", "source_file"}
    assert sorted(lists[0]) == sorted(lists[1]) == ["filename", "i", "index", "j", "k", "path", "source_file"]


def test_lexer() -> None:
    c = "x->y = 'a\\'b' + \"//\"; // z\n/* w */ n++"
    assert lex(c, "c") == ["x", "->", "y", "=", '"', "+", '"', ";", "n", "++"]
    assert lex("s = f'''a\nb''' + r'\\' # t", "python")[:4] == ["s", "=", '"', "+"]
    assert lex("a := `raw\n'`", "go") == ["a", ":=", '"']
    assert subwords("_maxHTTPLen2") == ["max", "http", "len", "2"]


@pytest.mark.parametrize("name", ["corpus", "random", "embedding"])
def test_a_corpus_in_a_file(tmp_path: Path, site: Site, name: str) -> None:
    path = tmp_path / "rows.jsonl"
    labels = CORPUS.labels.tolist() if CORPUS.labels is not None else []
    rows = [{"text": p.code, "kind": k} for p, k in zip(CORPUS.programs, labels, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = load_provider(f"{name}:{path},code=text,label=kind,language=python,limit=3")
    given = load_provider(f"{name},limit=3", corpus=CORPUS)
    assert read.fingerprint() == given.fingerprint()
    assert read.suggest(site, avoid=0) == given.suggest(site, avoid=0)
    with pytest.raises(UsageError, match="has no option 'rnak'"):
        load_provider(f"{name}:{path},language=python,label=kind,code=text,rnak=class")


def test_refusals() -> None:
    with pytest.raises(UsageError, match="need code to take names from"):
        load_provider("corpus")
    with pytest.raises(UsageError, match="expected similarity, class, rival, mixed, random"):
        load_provider("corpus,rank=best", corpus=CORPUS)
    with pytest.raises(UsageError, match="unknown substitute provider 'corpsu'; did you mean 'corpus'"):
        load_provider("corpsu", corpus=CORPUS)
    with pytest.raises(UsageError, match="name no provider"):
        load_provider(":x", corpus=CORPUS)
    with pytest.raises(UsageError, match="give more code"):
        load_provider("embedding", corpus=Corpus(Programs([Program("a = 1", "python")])))
