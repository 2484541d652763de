"""``api:FILE.toml``: any JSON API, by a file that says how rows go in and where answers come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jmespath
import numpy as np
import orjson
from torch import Tensor

from bbox.batch import Batch, images
from bbox.code.program import Programs
from bbox.errors import BboxError, InputError, UsageError
from bbox.targets.http.base import HttpTarget, read_json
from bbox.targets.http.client import Message, Reply
from bbox.targets.http.pictures import base64_picture, laid_out
from bbox.targets.http.settings import Settings, read_settings, read_url
from bbox.targets.http.template import ApiMapping, read_mapping

__all__ = ["ApiTarget", "load"]

_ABSENT = 0.0  # the score of a class that a top-k list leaves out


class ApiTarget(HttpTarget):
    """A JSON API.

    Where the answer is a list of the best classes (``top``), a class that is not in it scores 0.

    Args:
        settings: where it is and how hard it may be asked.
        mapping: how it is asked.
        name: what the user would type to load it again.
    """

    def __init__(self, settings: Settings, mapping: ApiMapping, *, name: str) -> None:
        super().__init__(settings, name=name, identity={"url": str(settings.url), "mapping": asdict(mapping)})
        self.mapping = mapping
        self.takes = "code" if mapping.image == "text" else "images"
        self.access = "labels" if mapping.kind == "labels" else "scores"
        self.class_names = mapping.classes
        self.num_classes = mapping.num_classes or (len(mapping.classes) if mapping.classes else None)
        self.input_shape = mapping.input_shape
        self._find = jmespath.compile(mapping.path).search
        self._label = jmespath.compile(mapping.label_path).search
        self._score = jmespath.compile(mapping.score_path).search

    def encode(self, rows: Batch) -> Message:
        """The request that the mapping makes of these rows."""
        content = orjson.dumps(self.mapping.body(self._inputs(rows)))
        headers = {"Content-Type": "application/json"}
        return Message(self.mapping.method, self.settings.url, len(rows), content, headers)

    def decode(self, reply: Reply, count: int) -> Tensor:
        """What the mapping's path finds, as scores or labels."""
        said = read_json(reply.body)
        if said is None:
            raise self.fault(f"answers what is no JSON: {self.client.clean(reply.body.decode(errors='replace'))}")
        found = self._find(said)
        if found is None or found == []:
            raise self._missing(said)
        rows = [found] if self.mapping.rows == "one" else found
        if self.mapping.rows == "one" and self.mapping.kind == "labels" and isinstance(found, list) and len(found) == 1:
            rows = found
        if not isinstance(rows, list) or len(rows) != count:
            got = len(rows) if isinstance(rows, list) else type(rows).__name__
            raise self.fault(f"answers {got} for {count} rows at {self.mapping.path!r}")
        if self.mapping.kind == "labels":
            return self.named(rows, self.class_names)
        return self.scored([self._row(row) for row in rows] if self.mapping.kind == "top" else rows, count)

    def _inputs(self, rows: Batch) -> list[Any]:
        mapping = self.mapping
        if mapping.image == "text":
            if not isinstance(rows, Programs):
                raise InputError(f"{self.name} takes source code, and the data hold images")
            for program in rows:
                if program.partner is not None:
                    raise InputError(f"{self.name} reads single programs, and the data hold pairs")
                if mapping.language not in (None, program.language):
                    raise InputError(f"{self.name} reads {mapping.language}, and the data hold {program.language}")
            return rows.codes()
        pixels = images(rows)
        if mapping.image == "array":
            dtype = np.dtype(np.float64 if mapping.range == "0-1" else np.uint8)
            exact: list[Any] = laid_out(pixels, mapping.layout, mapping.range, dtype).tolist()
            return exact
        return [
            base64_picture(row, mapping.image, quality=mapping.quality, data_uri=mapping.data_uri) for row in pixels
        ]

    def _row(self, entries: object) -> list[float]:
        """The scores of one list of the best classes."""
        if not isinstance(entries, list):
            raise self.fault(f"answers {type(entries).__name__} at {self.mapping.path!r}, expected a list of classes")
        index = {name: place for place, name in enumerate(self.mapping.classes or ())}
        scores = [_ABSENT] * len(index)
        for entry in entries:
            label, score = self._label(entry), self._score(entry)
            if label is None or isinstance(score, bool) or not isinstance(score, int | float):
                names = ", ".join(entry) if isinstance(entry, dict) else type(entry).__name__
                wanted = f"{self.mapping.label_path!r} and {self.mapping.score_path!r}"
                raise self.fault(f"answers a class without {wanted}; it has {names[:100]}")
            if str(label) not in index:
                raise self.fault(f"answers the class {str(label)[:40]!r}, which is not among classes")
            scores[index[str(label)]] = float(score)
        return scores

    def _missing(self, said: Any) -> BboxError:
        at_top = {name: type(value).__name__ for name, value in said.items()} if isinstance(said, dict) else {}
        kinds = ", ".join(f"{name} ({kind})" for name, kind in list(at_top.items())[:10]) or type(said).__name__
        text = f"{self.mapping.path!r} finds nothing in its answer, which holds {self.client.clean(kinds)}"
        return self.fault(text) if self.answered else InputError(f"{self.name}: {text}")


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> ApiTarget:
    """Load a mapping file (docs/api-mapping.md). Options are the common ones (``bbox.targets.http.settings``).

    Raises:
        InputError: the file is refused.
        UsageError: its URL or an option is wrong, or an environment variable that it names is not set.
    """
    del trust, device
    spec = f"api:{reference}"
    mapping = read_mapping(Path(reference).expanduser())
    url = read_url(f"{reference}: url", mapping.url)
    if mapping.rows == "one" and options.get("batch") not in (None, 1, "1"):
        raise UsageError(f'{spec}: batch={options["batch"]}, and the mapping says rows = "one"')
    given = {**options, "batch": 1} if mapping.rows == "one" else dict(options)
    settings, _ = read_settings(spec, url, given, headers=mapping.headers)
    return ApiTarget(settings, mapping, name=spec)
