"""``http://HOST:PORT/v2/models/NAME``: a model behind the Open Inference Protocol (KServe V2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import httpx
import numpy as np
from torch import Tensor

from bbox.batch import Batch, images
from bbox.code.program import Programs
from bbox.errors import InputError, TargetError, UsageError
from bbox.targets.account import Bill, Terms, account
from bbox.targets.base import Access
from bbox.targets.http.base import HttpTarget, read_json
from bbox.targets.http.client import Client, Message, Reply
from bbox.targets.http.metadata import Signature, read_signature
from bbox.targets.http.pictures import LAYOUTS, RANGES, laid_out
from bbox.targets.http.settings import Settings, read_settings, read_url
from bbox.targets.http.tensors import LENGTH, NUMPY, ProtocolError, array_of, pack, split_reply, texts_to_bytes
from bbox.targets.options import Options, class_names

__all__ = ["InferenceTarget", "load_http", "load_https"]

_OPTIONS = (
    "input", "output", "datatype", "layout", "range", "binary", "access", "classes", "num_classes", "input_shape",
)  # fmt: skip
_PATH = re.compile(r"(.*/v2/models/[^/]+(?:/versions/[^/]+)?)(?:/infer)?/?")
_SCORES = re.compile(r"prob|score|logit", re.IGNORECASE)  # output names that mean scores
_PATIENCE = 10.0  # seconds at most for the metadata of a server that is just starting


class InferenceTarget(HttpTarget):
    """A model behind the Open Inference Protocol.

    Args:
        settings: the URL of the model, and how hard it may be asked.
        signature: the model's input and output.
        binary: whether to send, and to ask for, binary tensors. Answers are read as they come.
        access: ``None`` where the first answer tells.
        classes: names by index, for a model that answers names.
        num_classes, input_shape: where known.
        about: what the server says of itself, for the fingerprint.
    """

    def __init__(
        self,
        settings: Settings,
        signature: Signature,
        *,
        binary: bool = False,
        access: Access | None = None,
        classes: tuple[str, ...] | None = None,
        num_classes: int | None = None,
        input_shape: tuple[int, ...] | None = None,
        about: object = None,
    ) -> None:
        identity = {"url": str(settings.url), "headers": settings.headers.templates, "signature": signature}
        identity |= {"access": access, "classes": classes, "about": about}
        super().__init__(settings, name=str(settings.url), identity=identity)
        self.signature = signature
        self.binary = binary
        self.takes = "code" if signature.datatype == "BYTES" else "motion" if signature.motion else "images"
        self.told = access is not None
        self.access = access or "scores"
        self.class_names = classes
        self.num_classes = num_classes
        self.input_shape = input_shape
        self._url = settings.url.copy_with(path=f"{settings.url.path}/infer")

    def encode(self, rows: Batch) -> Message:
        """The request to infer these rows."""
        signature = self.signature
        given: dict[str, Any] = {"name": signature.input, "datatype": signature.datatype}
        request: dict[str, Any] = {"inputs": [given]}
        data: Any
        if isinstance(rows, Programs):
            data, raw = self._texts(rows, given)
        else:
            pixels = laid_out(images(rows), signature.layout, signature.range, np.dtype(NUMPY[signature.datatype]))
            given["shape"] = list(pixels.shape)
            data, raw = (None, pixels.tobytes()) if self.binary else (pixels.reshape(-1), None)
        if raw is None:
            given["data"] = data
        else:
            given.setdefault("parameters", {})["binary_data_size"] = len(raw)
        wanted = {"name": signature.output, **({"parameters": {"binary_data": True}} if self.binary else {})}
        if signature.output is not None:
            request["outputs"] = [wanted]
        elif self.binary:
            request["parameters"] = {"binary_data_output": True}
        content, headers = pack(request, raw)
        return Message("POST", self._url, len(rows), content, headers)

    def decode(self, reply: Reply, count: int) -> Tensor:
        """The chosen output as scores or labels."""
        try:
            said, raw = split_reply(reply.body, reply.headers.get(LENGTH))
            outputs = {str(output.get("name")): output for output in said["outputs"]}
            name = self._choose(outputs)
            array = array_of(outputs[name], raw.get(name))
        except ProtocolError as error:
            raise self.fault(self.client.clean(str(error))) from error
        if array.ndim > 2 and array.size == array.shape[0] * array.shape[1]:
            array = array.reshape(array.shape[:2])
        if array.ndim not in (1, 2) or len(array) != count:
            raise self.fault(f"answers {name!r} of shape {array.shape} for {count} rows")
        access = self._access(name, array)
        if access == "labels":
            if array.ndim == 2 and array.shape[1] != 1:
                raise self.fault(f"answers {name!r} of shape {array.shape}, expected one label a row")
            return self.named(array.reshape(-1).tolist(), self.class_names)
        return self.scored(array, count)

    def _texts(self, rows: Programs, given: dict[str, Any]) -> tuple[list[str] | None, bytes | None]:
        languages = sorted({program.language for program in rows})
        if len(languages) > 1:
            raise InputError(
                f"{self.name} is asked one language at a time, and the data hold {' and '.join(languages)}"
            )
        texts: list[str] = []
        for program in rows:
            if (program.partner is not None) != self.signature.pairs:
                reads = "pairs of programs" if self.signature.pairs else "single programs"
                raise InputError(f"{self.name} reads {reads}, and the data hold others")
            texts += [program.code] if program.partner is None else [program.code, program.partner]
        given["shape"] = [len(rows), 2] if self.signature.pairs else [len(rows)]
        given["parameters"] = {"language": languages[0]}
        return (None, texts_to_bytes(texts)) if self.binary else (texts, None)

    def _choose(self, outputs: Mapping[str, Any]) -> str:
        wanted = self.signature.output
        if wanted is None and len(outputs) == 1:
            return next(iter(outputs))
        if wanted is None or wanted not in outputs:
            names = ", ".join(outputs) or "none"
            raise ProtocolError(f"answers the outputs {names}; choose one with output=NAME")
        return wanted

    def _access(self, name: str, array: Any) -> Access:
        if not self.told:
            numbers = array.dtype.kind == "f"
            if numbers and (array.ndim == 1 or (array.shape[1] == 1 and not _SCORES.search(name))):
                raise self.fault(f"answers one number a row in {name!r}; give access=labels if it is the class index")
            wide = array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "fiu"
            self.access, self.told = "scores" if numbers or wide else "labels", True
        return self.access


def load_http(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> InferenceTarget:
    """Load ``http://HOST:PORT/v2/models/NAME``, or ``.../versions/VERSION``.

    Options beside the common ones (``bbox.targets.http.settings``): input, output, datatype, layout (chw, hwc, flat),
    range (0-1, 0-255), binary (auto, true, false), access (auto, scores, labels), classes (names with commas, or a
    file), num_classes and input_shape.

    Raises:
        UsageError: the URL or an option is wrong, or the model's input or output must be chosen.
        TargetError: the server does not answer.
    """
    return _load(f"http:{reference}", options)


def load_https(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> InferenceTarget:
    """As ``load_http``, over TLS, with the server's certificate checked."""
    return _load(f"https:{reference}", options)


def _load(spec: str, options: Mapping[str, object]) -> InferenceTarget:
    scheme = spec.partition(":")[0]
    url = read_url(f"target {scheme}://...", spec)
    found = _PATH.fullmatch(url.path)
    if found is None or url.query:
        raise UsageError(
            f"{url.copy_with(query=None)}: expected {scheme}://HOST:PORT/v2/models/NAME; "
            "for another API use api:FILE.toml"
        )
    url = url.copy_with(path=found.group(1))
    spec = str(url)
    settings, read = read_settings(spec, url, options, known=_OPTIONS)
    given = _Given.of(spec, read, options)
    client = Client(settings)
    try:
        about = _metadata(client, url, optional=given.input is not None)
        root = url.copy_with(path=url.path.partition("/models/")[0])
        extensions = str(_metadata(client, root, optional=True).get("extensions"))
        binary = given.binary == "true" or (given.binary == "auto" and "binary_tensor_data" in extensions)
        if "model_configuration" in extensions:  # Triton's; metadata do not say what a batch may hold
            config = _metadata(client, url.copy_with(path=f"{url.path}/config"), optional=True)
            most = config.get("max_batch_size")
            if type(most) is int and 0 < most < settings.batch:
                settings = replace(settings, batch=most)
    finally:
        client.close()
    signature, shape, width = read_signature(spec, about, given.input, given.output, given.datatype, given.layout)
    signature = signature.ranged(given.range)
    named = options.get("classes")
    known = about.get("parameters")
    told: Mapping[str, Any] = known if isinstance(known, dict) else {}  # what bbox serve says besides
    classes = tuple(class_names(spec, named)) if named is not None else _names(told, given.num_classes or width)
    if given.num_classes is not None and classes is not None and len(classes) != given.num_classes:
        raise UsageError(f"{spec}: classes names {len(classes)}, and num_classes is {given.num_classes}")
    target = InferenceTarget(
        settings,
        signature,
        binary=binary,
        access=given.access or ("scores" if width is not None else None),
        classes=classes,
        num_classes=given.num_classes or (len(classes) if classes else width),
        input_shape=given.input_shape or shape,
        about=about,
    )
    target.refuses = told.get("refuses") is True
    target.deterministic = told.get("deterministic") is not False
    return target


def _names(told: Mapping[str, Any], count: int | None) -> tuple[str, ...] | None:
    """The class names that a server gives, where they are as many as its scores."""
    names = told.get("class_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if len(names) > 1 and count in (None, len(names)) else None


@dataclass(frozen=True)
class _Given:
    """The options of this kind, read."""

    input: str | None
    output: str | None
    datatype: str | None
    layout: str | None
    range: str | None
    binary: str
    access: Access | None
    num_classes: int | None
    input_shape: tuple[int, ...] | None

    @staticmethod
    def of(spec: str, read: Options, options: Mapping[str, object]) -> _Given:
        binary = str(options.get("binary", "auto")).lower()
        if binary not in ("auto", "true", "false"):
            raise UsageError(f"{spec}: binary={binary}, expected auto or true or false")
        access = read.choice("access", ("auto", "scores", "labels"))
        return _Given(
            read.text("input"),
            read.text("output"),
            read.choice("datatype", (*NUMPY, "BYTES")),
            read.choice("layout", LAYOUTS),
            read.choice("range", tuple(RANGES)),
            binary,
            None if access == "auto" else cast(Literal["scores", "labels"] | None, access),
            read.integer("num_classes"),
            cast("tuple[int, ...] | None", read.preprocessing().get("input_shape")),
        )


def _metadata(client: Client, url: httpx.URL, *, optional: bool) -> dict[str, Any]:
    """What a server says at a URL; nothing where it refuses and that is ``optional``."""
    terms = Terms(patience=min(_PATIENCE, account()[1].patience))
    try:
        reply = client.run(lambda places: client.send(places, Message("GET", url), Bill(), terms), terms)
    except TargetError as error:
        if optional and " gave no answer" not in str(error):
            return {}
        raise
    said = read_json(reply.body)
    if not isinstance(said, dict):
        if optional:
            return {}
        raise TargetError(f"{client.settings.where} says nothing of its model in JSON; is it an inference server?")
    return said
