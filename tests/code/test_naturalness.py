"""Numbers of naturalness, against ones counted by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from bbox.code import Program
from bbox.code.naturalness import known_share, pseudo_perplexity, same_style_share, style, vocabulary
from bbox.code.site import site_of
from bbox.code.substitutes.masked_lm import MaskedLM
from bbox.code.substitutes.words import words
from tests.code.substitutes.tiny_lm import save_tiny_lm


def test_vocabulary_counts_programs_and_not_comments_or_strings() -> None:
    programs = [Program("a = b + b  # c\n", "python"), Program('b = "d"\n', "python"), Program("int b; // e", "c")]
    assert vocabulary(programs) == {"a": 1, "b": 3, "int": 1}


def test_known_share() -> None:
    known = {"count": 3, "cnt": 2}
    assert known_share(["count", "cnt", "lexsendef", "count"], known) == 0.5
    assert known_share(["cnt"], known, least=2) == 1.0
    assert math.isnan(known_share([], known))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("i", "lower"), ("_row_no", "snake"), ("N", "upper"), ("MAX_2", "upper"), ("rowNo", "camel"), ("RowNo", "pascal")],
)
def test_style(name: str, expected: str) -> None:
    assert style(name) == expected


def test_same_style_share() -> None:
    assert same_style_share([("row", "rowNo"), ("row_no", "row"), ("rowNo", "row_no"), ("N", "n")]) == 0.5
    assert math.isnan(same_style_share([]))


def test_pseudo_perplexity_is_that_of_a_slow_reading(tmp_path: Path) -> None:
    folder = save_tiny_lm(tmp_path)
    program = Program("def f(width, h):\n    return width * h + width\n", "python")
    bindings = site_of(program).bindings
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder).eval()
    found = words(program)
    pieces = [tokenizer(" " + word.text, add_special_tokens=False)["input_ids"] for word in found]
    whole = [tokenizer.cls_token_id, *(piece for some in pieces for piece in some), tokenizer.sep_token_id]
    expected = []
    for binding in bindings:
        values = []
        for at, word in enumerate(found):
            if (word.start, word.end) in binding.spans:
                first = 1 + sum(map(len, pieces[:at]))
                for place in range(first, first + len(pieces[at])):
                    masked = [*whole[:place], tokenizer.mask_token_id, *whole[place + 1 :]]
                    with torch.no_grad():
                        logits = model(input_ids=torch.tensor([masked])).logits[0, place].double()
                    values.append(float(logits.log_softmax(-1)[whole[place]]))
        expected.append(math.exp(-sum(values) / len(values)))
    assert len(values) > 1
    got = pseudo_perplexity(MaskedLM(str(folder), spec="mlm"), program, bindings)
    assert got == pytest.approx(expected, rel=1e-4)
