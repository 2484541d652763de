"""The masked language model's candidates, against a slow reading of the paper."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from bbox.code import Program
from bbox.code.site import Site, site_of
from bbox.code.substitutes import load_provider
from bbox.code.substitutes.mlm import MaskedLMNames, spellings
from bbox.code.substitutes.words import words
from bbox.errors import InputError, UsageError
from tests.code.substitutes.tiny_lm import save_tiny_lm

CODE = '''
def area(width, h, s):
    """Prose, which is left out."""
    total = width * h  # so is this
    s = f"{total} of {width}"
    return total, s
'''
OPTIONS = "top=12,keep=6,pieces=3,combinations=7"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_lm(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="module")
def site() -> Site:
    return site_of(Program(CODE, "python"))


def slow(site: Site, folder: Path, encoder: Path | None = None, *, mask: bool = False) -> list[list[str]]:
    """The candidates of a program of one window, one row of the model at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    reader = AutoModel.from_pretrained(encoder, add_pooling_layer=False).eval() if encoder else model.base_model
    found = words(site.program)
    pieces = [tokenizer(" " + word.text, add_special_tokens=False)["input_ids"] for word in found]
    flat = list(itertools.chain(*pieces))
    whole = [tokenizer.cls_token_id, *flat, tokenizer.sep_token_id]

    def read(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return reader(input_ids=torch.tensor([ids])).last_hidden_state[0].double()

    def cosine(first: int, new: list[int]) -> float:
        changed = [*whole[:first], *new, *whole[first + len(new) :]]
        there = slice(first, first + len(new))
        return float(torch.cosine_similarity(read(changed)[there], read(whole)[there], dim=-1).mean())

    def spells(piece: int, starts: bool) -> bool:
        text = tokenizer.decode([piece])
        text = text.strip() if starts else text
        return text.replace("_", "a").isalnum() and text.isascii() and not (starts and text[0].isdigit())

    lists = []
    for binding in site.bindings:
        best: dict[str, float] = {}
        for at, word in enumerate(found):
            if (word.start, word.end) not in binding.spans:
                continue
            count = len(pieces[at])
            first = 1 + sum(map(len, pieces[:at]))
            asked = [*whole]
            if mask:
                asked[first : first + count] = [tokenizer.mask_token_id] * count
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([asked])).logits[0]
            top = [logits[first + j].topk(12).indices.tolist() for j in range(count)]
            rows = [[top[j][i] for j in range(count)] for i in range(12)]
            rows = sorted(rows, key=lambda row, first=first: -cosine(first, row))[:6]
            if count > 1:
                in_place = []
                for j in range(count):
                    usable = [i for i in dict.fromkeys(row[j] for row in rows) if spells(i, j == 0)]
                    in_place.append(usable[:3] or [pieces[at][j]])
                ranks = itertools.product(*(range(len(some)) for some in in_place))
                by_sum = sorted(ranks, key=sum)  # stable: of one sum, in lexicographic order
                names = [[some[r] for some, r in zip(in_place, chosen, strict=True)] for chosen in by_sum]
                rows = [name for name in names if name != pieces[at]][:7]
            for row in rows:
                name = tokenizer.decode(row).strip()
                best[name] = max(best.get(name, -2.0), cosine(first, row))
        lists.append(site.usable(sorted(best, key=lambda name, best=best: -best[name])))
    return lists


@pytest.mark.parametrize("mask", [False, True])
def test_candidates_are_those_of_a_slow_reading(site: Site, folder: Path, mask: bool) -> None:
    provider = load_provider(f"mlm:{folder},{OPTIONS},batch=5" + (",mask=1" if mask else ""))
    expected = slow(site, folder, mask=mask)
    assert provider.suggest(site) == expected
    assert [len(names) > 0 for names in expected] == [True] * 4


def test_another_encoder_ranks(site: Site, folder: Path, other: Path) -> None:
    provider = load_provider(f"mlm:{folder},encoder={other},{OPTIONS}")
    assert provider.suggest(site) == slow(site, folder, other) != slow(site, folder)


def test_cost_is_as_documented(site: Site, folder: Path) -> None:
    provider = load_provider(f"mlm:{folder},{OPTIONS}")
    assert isinstance(provider, MaskedLMNames)
    provider.suggest(site)
    encoded = provider.model.encode(site.program)
    counts = [encoded.places[span][1] for binding in site.bindings for span in binding.spans]
    least = 2 + 12 * len(counts)
    assert least < provider.model.rows_read <= least + 7 * sum(count > 1 for count in counts)


def test_occurrences_are_capped(site: Site, folder: Path) -> None:
    provider = load_provider(f"mlm:{folder},{OPTIONS},occurrences=1")
    assert isinstance(provider, MaskedLMNames)
    provider.suggest(site)
    some = provider.model.rows_read
    assert 2 + 12 * 4 <= some <= 2 + 19 * 4


def test_a_long_program_is_read_through_windows(folder: Path) -> None:
    body = "".join(f"    {name} = {name} + left\n" for name in ("alpha", "beta", "gamma") for _ in range(12))
    site = site_of(Program(f"def f(left, alpha, beta, gamma, last):\n{body}    return last\n", "python"))
    provider = load_provider(f"mlm:{folder},{OPTIONS}")
    assert isinstance(provider, MaskedLMNames)
    model = provider.model
    encoded = model.encode(site.program)
    assert len(encoded.ids) > 3 * model.length
    for place in encoded.places.values():
        start = model.window(encoded, place)
        assert start is not None
        before, after = place[0] - start, start + model.length - sum(place)
        assert before >= min(place[0], model.length // 4 - place[1])
        assert after >= min(len(encoded.ids) - sum(place), model.length // 4 - place[1])
    assert [bool(names) for names in provider.suggest(site)] == [True] * 5


def test_names_are_fresh_stripped_identifiers(site: Site, folder: Path) -> None:
    for names in load_provider(f"mlm:{folder}").suggest(site):
        assert names == site.usable(names)
        assert all(name == name.strip() for name in names)


def test_every_place_varies() -> None:
    some = list(itertools.islice(spellings([[1, 2, 3, 4]] * 5), 24))
    assert min(len({name[place] for name in some}) for place in range(5)) == 3


def test_refusals(folder: Path, tmp_path: Path) -> None:
    smaller = save_tiny_lm(tmp_path / "smaller", vocabulary=300)
    with pytest.raises(UsageError, match="different sub-tokens"):
        load_provider(f"mlm:{folder},encoder={smaller}")
    with pytest.raises(UsageError, match="name no model"):
        load_provider("mlm")
    with pytest.raises(UsageError, match="no option 'tops'; did you mean 'top'"):
        load_provider(f"mlm:{folder},tops=3")
    headless = tmp_path / "headless"
    AutoModel.from_pretrained(folder).save_pretrained(headless)
    AutoTokenizer.from_pretrained(folder).save_pretrained(headless)
    with pytest.raises(InputError, match="fill masks"):
        load_provider(f"mlm:{headless}")
