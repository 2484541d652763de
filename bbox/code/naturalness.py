"""How natural new names are: numbers that a person's judgement can be held against, not the judgement itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from bbox.code.bindings import Binding
from bbox.code.program import Program
from bbox.code.substitutes.lexer import is_name, lex

if TYPE_CHECKING:
    from bbox.code.substitutes.masked_lm import MaskedLM

__all__ = ["Style", "known_share", "pseudo_perplexity", "same_style_share", "style", "vocabulary"]

Style = Literal["lower", "snake", "upper", "camel", "pascal"]


def vocabulary(programs: Iterable[Program]) -> Counter[str]:
    """How many of the programs contain each identifier (or keyword).

    Example:
        >>> vocabulary([Program("a = b", "python"), Program("b = b.c", "python")])["b"]
        2
    """
    return Counter(
        name for p in programs for name in dict.fromkeys(token for token in lex(p.code, p.language) if is_name(token))
    )


def known_share(names: Sequence[str], known: Mapping[str, int], *, least: int = 3) -> float:
    """Share of the names that real code uses: at least ``least`` programs contain them. NaN for no names.

    Example:
        >>> known_share(["count", "xendlef"], {"count": 40})
        0.5
    """
    return _mean([known.get(name, 0) >= least for name in names])


def style(name: str) -> Style:
    """How a name is written; leading underscores do not count.

    Example:
        >>> [style(name) for name in ("n", "line_no", "MAX_LEN", "lineNo", "LineNo")]
        ['lower', 'snake', 'upper', 'camel', 'pascal']
    """
    bare = name.strip("_")
    if not any(letter.isupper() for letter in bare):
        return "snake" if "_" in bare else "lower"
    if bare.isupper():
        return "upper"
    return "pascal" if bare[0].isupper() else "camel"


def same_style_share(renames: Iterable[tuple[str, str]]) -> float:
    """Share of (old, new) names that are written alike; one plain word goes with any small start. NaN for none.

    Example:
        >>> same_style_share([("count", "total"), ("line", "lineNo"), ("row_count", "rowCount"), ("N", "n")])
        0.5
    """
    return _mean([_alike(style(old), style(new)) for old, new in renames])


def pseudo_perplexity(model: MaskedLM, program: Program, bindings: Sequence[Binding]) -> list[float]:
    """How surprising each name is where it stands: exp of the mean negative log probability of its sub-tokens.

    Each sub-token of each occurrence is masked alone, the rest of the program stays (Salazar et al., "Masked Language
    Model Scoring", ACL 2020, equation 2). NaN for a name of which the model reads no occurrence.

    Args:
        program: the program with the names in question, for example an adversarial one.
        bindings: of this program (``bbox.code.bindings.resolve``), the names to score.

    Cost: one row of the model for each sub-token of each occurrence.
    """
    encoded = model.encode(program)
    rows: list[list[int]] = []
    masked: list[int] = []
    owners: list[int] = []
    for number, binding in enumerate(bindings):
        for place in (encoded.places[span] for span in binding.spans if span in encoded.places):
            start = model.window(encoded, place)
            if start is not None:
                row = encoded.ids[start : start + model.length]
                rows += [row] * place[1]
                masked += range(place[0] - start, place[0] - start + place[1])
                owners += [number] * place[1]
    likelihood = model.log_likelihood(rows, masked).tolist()
    of: list[list[float]] = [[] for _ in bindings]
    for number, value in zip(owners, likelihood, strict=True):
        of[number].append(value)
    return [math.exp(-_mean(values)) for values in of]


def _alike(old: Style, new: Style) -> bool:
    return old == new or ("lower" in (old, new) and {old, new} <= {"lower", "snake", "camel"})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
