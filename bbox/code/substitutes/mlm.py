"""Candidates of a masked language model, as ALERT makes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from bbox.code.site import Site
from bbox.code.substitutes.base import Provider, Resources
from bbox.code.substitutes.masked_lm import MaskedLM, Place
from bbox.errors import UsageError
from bbox.options import build

__all__ = ["MaskedLMNames", "Options", "load", "spellings"]


@dataclass(frozen=True)
class Options:
    """Options of ``mlm``; the counts are those of the public code.

    Args:
        encoder: the model whose contextual embeddings rank candidates, a folder or a hub id; empty for the language
            model itself, as in the public code (the paper takes GraphCodeBERT).
        mask: whether a name is masked where it is predicted; the public code leaves it in.
        top: predictions in the place of each sub-token.
        keep: those of them that are kept, nearest in context.
        pieces: of a name of several sub-tokens, candidates in each place.
        combinations: and names spelled of them.
        occurrences: places of a name that are asked, spread evenly; 0 for all.
        batch: rows of one forward.
    """

    encoder: str = ""
    mask: bool = False
    top: int = 60
    keep: int = 30
    pieces: int = 4
    combinations: int = 24
    occurrences: int = 0
    batch: int = 64


_SPELLED = 12  # sub-tokens of a name that are replaced; what follows them stays


@dataclass(frozen=True)
class _Occurrence:
    """One place of an identifier, in its window."""

    binding: int
    row: list[int]
    place: Place

    def replaced(self, ids: Sequence[int]) -> list[int]:
        first, count = self.place
        return [*self.row[:first], *ids, *self.row[first + count :]]


class MaskedLMNames(Provider):
    """What a masked language model would write in the place of a name, nearest in context first.

    ALERT (Yang et al., ICSE 2022), section 3.2: in each place of a name, the ``top`` predictions for each of its
    sub-tokens; the j-th of all places together make the j-th replacement, and the ``keep`` ones stay whose contextual
    embeddings have the greatest cosine with those of the name (mean over its sub-tokens). A name of one sub-token has
    these as candidates; for one of several, names are spelled of the best ``pieces`` in each place. All places of a
    name add up.

    The public code differs where it fails: spelled names are taken in order of their summed ranks here (there the first
    sub-tokens hardly vary from the third on) and then ranked by the same cosine (there by a perplexity without context,
    which a set then forgets); candidates are stripped and come in a defined order; a long program is read through
    windows (there it is cut at 512 sub-tokens).

    Cost: of a program with w windows and o occurrences, w + o * ``top`` rows of the model, w rows of the encoder, and
    ``combinations`` more for each occurrence of a name of several sub-tokens.
    """

    def __init__(self, language_model: MaskedLM, options: Options, encoder: MaskedLM | None = None) -> None:
        self.model, self.encoder, self.options = language_model, encoder or language_model, options
        if self.encoder.tokenizer.get_vocab() != self.model.tokenizer.get_vocab():
            raise UsageError(
                f"mlm: {self.encoder.reference} and {self.model.reference} split code into different sub-tokens; "
                "take an encoder of the same vocabulary"
            )
        self.length = min(self.model.length, self.encoder.length)
        self.model.length = self.encoder.length = self.length

    def suggest(self, site: Site, *, avoid: int | None = None, wanted: int | None = None) -> list[list[str]]:
        del avoid, wanted
        occurrences = self._occurrences(site)
        replacements = self._predictions(occurrences)
        old = self._states(occurrences)
        scores = self._cosines(occurrences, old, replacements)
        spelled = [
            self._spelled(o, [ids[i] for i in torch.argsort(-score, stable=True).tolist()][: self.options.keep])
            for o, ids, score in zip(occurrences, replacements, scores, strict=True)
        ]
        again = [number for number, o in enumerate(occurrences) if o.place[1] > 1]
        chosen = [occurrences[number] for number in again]
        ranked = self._cosines(chosen, [old[number] for number in again], [spelled[number] for number in again])
        best: list[dict[str, float]] = [{} for _ in site.bindings]
        cosines = dict(zip(again, ranked, strict=True))
        for number, occurrence in enumerate(occurrences):
            score = cosines.get(number)
            if score is None:
                score = -torch.sort(-scores[number], stable=True).values[: self.options.keep]
            names = best[occurrence.binding]
            for ids, value in zip(spelled[number], score.tolist(), strict=True):
                name = self.model.text(ids).strip()
                names[name] = max(value, names.get(name, -2.0))
        # A sort is stable: of equal ones, the first that was found comes first.
        return [site.usable(sorted(names, key=lambda name, of=names: -of[name])) for names in best]  # type: ignore[misc]

    def _occurrences(self, site: Site) -> list[_Occurrence]:
        encoded = self.model.encode(site.program)
        found = []
        for number, binding in enumerate(site.bindings):
            places = [encoded.places[span] for span in binding.spans if span in encoded.places]
            for first, count in _spread(places, self.options.occurrences):
                start = self.model.window(encoded, (first, count))
                if start is not None:
                    row = encoded.ids[start : start + self.length]
                    found.append(_Occurrence(number, row, (first - start, count)))
        return found

    def _predictions(self, occurrences: list[_Occurrence]) -> list[list[list[int]]]:
        """The j-th replacement of each occurrence: one id for each of its sub-tokens."""
        mask = self.model.tokenizer.mask_token_id
        asked = [o.replaced([mask] * o.place[1]) if self.options.mask else o.row for o in occurrences]
        rows, of = _distinct(asked)
        found = self.model.predict(rows, [o.place for o in occurrences], of, self.options.top)
        return [ids.T.tolist() for ids in found]

    def _states(self, occurrences: list[_Occurrence]) -> list[Tensor]:
        """How the encoder reads each occurrence as it stands."""
        rows, of = _distinct([o.row for o in occurrences])
        whole = self.encoder.states(rows, [(0, len(row)) for row in rows])
        return [whole[i][o.place[0] : o.place[0] + o.place[1]] for i, o in zip(of, occurrences, strict=True)]

    def _cosines(
        self, occurrences: list[_Occurrence], old: list[Tensor], replacements: list[list[list[int]]]
    ) -> list[Tensor]:
        """Of each replacement of each occurrence, how near it is read to what stands there. Shapes: (replacements,)."""
        rows = (o.replaced(ids) for o, many in zip(occurrences, replacements, strict=True) for ids in many)
        owners = [number for number, many in enumerate(replacements) for _ in many]
        found: list[Tensor] = []
        while chunk := list(islice(rows, self.encoder.batch)):
            of = owners[len(found) : len(found) + len(chunk)]
            new = self.encoder.states(chunk, [occurrences[number].place for number in of])
            flat = torch.cosine_similarity(torch.cat(new).double(), torch.cat([old[i] for i in of]).double(), dim=-1)
            found += [part.mean() for part in torch.split(flat.cpu(), [len(state) for state in new])]
        sizes = [len(many) for many in replacements]
        return list(torch.split(torch.stack(found), sizes)) if found else [torch.zeros(0)] * len(sizes)

    def _spelled(self, occurrence: _Occurrence, nearest: list[list[int]]) -> list[list[int]]:
        """What an occurrence may be called, of its nearest replacements."""
        first, count = occurrence.place
        if count == 1:
            return nearest
        old = occurrence.row[first : first + count]
        places = []
        for place in range(min(count, _SPELLED)):
            pieces = [i for i in dict.fromkeys(ids[place] for ids in nearest) if self._spells(i, place == 0)]
            places.append(pieces[: self.options.pieces] or [old[place]])
        names = ([*name, *old[_SPELLED:]] for name in spellings(places))
        return list(islice((name for name in names if name != old), self.options.combinations))

    def _spells(self, piece: int, starts: bool) -> bool:
        """Whether a sub-token may stand in a name; only the first one may have a space before it."""
        text = self.model.text([piece])
        text = text.strip() if starts else text
        return text.replace("_", "a").isalnum() and text.isascii() and not (starts and text[0].isdigit())

    def fingerprint(self) -> str:
        text = f"mlm {self.model.fingerprint()} {self.encoder.fingerprint()} {self.options}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def spellings(places: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Every way to take one piece for each place, in order of the summed ranks: each place varies from the start.

    Example:
        >>> list(spellings([[1, 2], [3, 4], [5]]))
        [[1, 3, 5], [1, 4, 5], [2, 3, 5], [2, 4, 5]]
    """

    def ranks(place: int, total: int) -> Iterator[list[int]]:
        if place == len(places):
            if total == 0:
                yield []
            return
        for rank in range(min(total, len(places[place]) - 1) + 1):
            for rest in ranks(place + 1, total - rank):
                yield [rank, *rest]

    for total in range(sum(len(pieces) - 1 for pieces in places) + 1):
        for chosen in ranks(0, total):
            yield [pieces[rank] for pieces, rank in zip(places, chosen, strict=True)]


def _distinct(rows: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """Each row once, in order, and where each of the given ones is among them."""
    place: dict[tuple[int, ...], int] = {}
    of = [place.setdefault(tuple(row), len(place)) for row in rows]
    return [list(row) for row in place], of


def _spread(places: list[Place], most: int) -> list[Place]:
    """At most so many of the places, evenly spread; all for 0."""
    if not most or len(places) <= most:
        return places
    return [places[i * len(places) // most] for i in range(most)]


def load(path: str, options: dict[str, str], given: Resources) -> MaskedLMNames:
    """See ``load_provider``."""
    if not path:
        raise UsageError("substitutes 'mlm' name no model; write mlm:FOLDER or mlm:HUB_ID")
    chosen = build("mlm", Options, options)
    spec = f"mlm:{path}"
    model = MaskedLM(path, spec=spec, device=given.device, batch=chosen.batch)
    if not chosen.encoder:
        return MaskedLMNames(model, chosen)
    other = MaskedLM(
        chosen.encoder, spec=f"{spec},encoder={chosen.encoder}", device=given.device, head=False, batch=chosen.batch
    )
    return MaskedLMNames(model, chosen, other)
