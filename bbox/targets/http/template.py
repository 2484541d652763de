"""The file that says how a JSON API is asked, read strictly."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from bbox.errors import InputError
from bbox.registry import did_you_mean
from bbox.targets.http.pictures import LAYOUTS, RANGES

__all__ = ["ApiMapping", "read_mapping"]

_IMAGES = ("array", "png", "jpeg", "text")
_TOP = ("url", "method", "rows", "image", "layout", "range", "data_uri", "quality", "classes", "num_classes",
        "input_shape", "language", "headers", "request", "answer")  # fmt: skip
_ANSWER = ("scores", "labels", "top", "label_path", "score_path")
_PLACES = {"one": "$row", "many": "$rows"}


@dataclass(frozen=True)
class ApiMapping:
    """How one API is asked and read; the fields are the file's keys (docs/api-mapping.md).

    Attributes:
        kind: what the answer's path finds: ``scores``, ``labels`` or ``top``.
        path: the JMESPath that finds it.
    """

    url: str
    request: Any
    kind: str
    path: str
    method: str = "POST"
    rows: str = "one"
    image: str = "array"
    layout: str = "chw"
    range: str = "0-1"
    data_uri: bool = False
    quality: int = 95
    label_path: str = "label"
    score_path: str = "score"
    classes: tuple[str, ...] | None = None
    num_classes: int | None = None
    input_shape: tuple[int, ...] | None = None
    language: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self, rows: list[Any]) -> Any:
        """The request's JSON with the rows in it: all of them, or the one where ``rows`` is ``one``."""
        return _filled(self.request, _PLACES[self.rows], rows if self.rows == "many" else rows[0])


def read_mapping(path: Path) -> ApiMapping:
    """Read a mapping file.

    Raises:
        InputError: it is missing, no TOML, or says something that is not known or does not go together.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; see docs/api-mapping.md") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: no TOML ({' '.join(str(error).split())})") from error
    return _Reader(path, said).mapping()


class _Reader:
    def __init__(self, path: Path, said: dict[str, Any]) -> None:
        self.path = path
        self.said = said

    def mapping(self) -> ApiMapping:
        said = self.said
        self._known("", said, _TOP)
        for name in ("url", "request", "answer"):
            if name not in said:
                raise self._fault(f"has no {name}")
        answer = self._typed("answer", said["answer"], dict, "a table")
        self._known("answer.", answer, _ANSWER)
        kinds = [kind for kind in ("scores", "labels", "top") if kind in answer]
        if len(kinds) != 1:
            raise self._fault(f"[answer] has {' and '.join(kinds) or 'none'} of scores, labels and top, expected one")
        for name, text in answer.items():
            self._path(f"answer.{name}", text)
        rest = {name: answer[name] for name in ("label_path", "score_path") if name in answer}
        if rest and kinds != ["top"]:
            raise self._fault(f"answer.{next(iter(rest))} goes with answer.top")
        mapping = ApiMapping(
            url=self._typed("url", said["url"], str, "text"),
            request=said["request"],
            kind=kinds[0],
            path=answer[kinds[0]],
            method=self._choice("method", ("POST", "PUT"), "POST"),
            rows=self._choice("rows", tuple(_PLACES), "one"),
            image=self._choice("image", _IMAGES, "array"),
            layout=self._choice("layout", LAYOUTS, "chw"),
            range=self._choice("range", tuple(RANGES), "0-1"),
            data_uri=self._typed("data_uri", said.get("data_uri", False), bool, "true or false"),
            quality=self._whole("quality", said.get("quality", 95)),
            classes=self._names(),
            num_classes=self._whole("num_classes", said["num_classes"]) if "num_classes" in said else None,
            input_shape=self._shape(),
            language=self._typed("language", said["language"], str, "text") if "language" in said else None,
            headers=self._headers(),
            **rest,
        )
        self._consistent(mapping)
        return mapping

    def _consistent(self, mapping: ApiMapping) -> None:
        place, other = _PLACES[mapping.rows], _PLACES["many" if mapping.rows == "one" else "one"]
        found = list(_leaves(mapping.request))
        if other in found:
            raise self._fault(f'[request] has "{other}", and rows is "{mapping.rows}"')
        if place not in found:
            raise self._fault(f'[request] has no "{place}", which rows = "{mapping.rows}" needs')
        if mapping.kind == "top" and mapping.classes is None:
            raise self._fault("answer.top needs classes, the names in the order of their indices")
        if mapping.classes and mapping.num_classes not in (None, len(mapping.classes)):
            raise self._fault(f"num_classes is {mapping.num_classes}, and classes names {len(mapping.classes)}")
        pictures = mapping.image in ("png", "jpeg")
        for name, fits in (
            ("layout", mapping.image == "array"),
            ("range", mapping.image == "array"),
            ("data_uri", pictures),
            ("quality", mapping.image == "jpeg"),
            ("input_shape", mapping.image != "text"),
            ("language", mapping.image == "text"),
        ):
            if name in self.said and not fits:
                raise self._fault(f'{name} does not go with image = "{mapping.image}"')
        if not 1 <= mapping.quality <= 100:
            raise self._fault(f"quality is {mapping.quality}, expected 1 to 100")

    def _known(self, prefix: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for name in table:
            if name not in known:
                near = did_you_mean(name, known) or ";"
                raise self._fault(f"has a key {prefix}{name}{near} it takes {', '.join(known)}")

    def _path(self, name: str, text: object) -> None:
        try:
            jmespath.compile(self._typed(name, text, str, "a JMESPath"))
        except JMESPathError as error:
            reason = " ".join(str(error).split())[:120]
            raise self._fault(f"{name} is {text!r}, no JMESPath ({reason})") from error

    def _choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value = self.said.get(name, default)
        if value not in choices:
            raise self._fault(f"{name} is {value!r}, expected {' or '.join(choices)}")
        return str(value)

    def _names(self) -> tuple[str, ...] | None:
        if "classes" not in self.said:
            return None
        names = self._typed("classes", self.said["classes"], list, "a list of names")
        if len(names) < 2 or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise self._fault("classes: expected at least two names, each once")
        return tuple(names)

    def _shape(self) -> tuple[int, ...] | None:
        if "input_shape" not in self.said:
            return None
        sides = self._typed("input_shape", self.said["input_shape"], list, "[channels, height, width]")
        return tuple(self._whole("input_shape", side) for side in sides)

    def _headers(self) -> dict[str, str]:
        headers = self._typed("headers", self.said.get("headers", {}), dict, "a table")
        return {name: self._typed(f"headers.{name}", value, str, "text") for name, value in headers.items()}

    def _whole(self, name: str, value: object) -> int:
        if type(value) is not int or value < 1:
            raise self._fault(f"{name} is {value!r}, expected an integer of at least 1")
        return value

    def _typed(self, name: str, value: Any, kind: type, called: str) -> Any:
        if not isinstance(value, kind):
            raise self._fault(f"{name} is a {type(value).__name__}, expected {called}")
        return value

    def _fault(self, text: str) -> InputError:
        return InputError(f"{self.path}: {text}")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value


def _filled(value: Any, place: str, rows: Any) -> Any:
    if isinstance(value, dict):
        return {name: _filled(each, place, rows) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, place, rows) for each in value]
    return rows if isinstance(value, str) and value == place else value
