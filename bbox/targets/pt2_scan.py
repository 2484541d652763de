"""Reading a .pt2 archive before torch does, and refusing what would run code.

``torch.export.load`` unpickles some records, loads compiled libraries, resolves operator names by attribute
access from ``torch``, and evaluates expressions as text. An archive of ``torch.export.save`` needs none of
the dangerous forms; one that has them is refused unless the user trusts it. This narrows what a file can do;
it is no sandbox.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from bbox.errors import InputError

__all__ = ["scan"]

_RECORDS = re.compile(
    r"models/model\.json|data/sample_inputs/model\.pt|data/(weights|constants)/(weight|tensor)_\d+"
    r"|data/(weights|constants)/model_(weights|constants)_config\.json"
    r"|archive_format|archive_version|byteorder|version|\.data/.*|\.format_version|\.storage_alignment|extra/.*"
)
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|quantized|quantized_decomposed)\.(?!from_file|save|__)[a-z_]\w*(\.(?!__)\w+)?"
    r"|torch\.ops\.aten\.__(and|or|xor|lshift|rshift)__\.(?!__)\w+"
    r"|torch\.(_?sym_\w+)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt)"
)
_WORD = re.compile(r"[\w.+:/\-]*")
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),<>=&|~.]*")
# sympy's classes begin with a capital; Python's builtins, which its parser also knows, do not. An attribute
# access and a name with two underscores have no place in a size expression.
_UNSAFE_EXPRESSION = re.compile(r"__|[A-Za-z_)]\w*\s*\.|\.\s*[A-Za-z_]|\b(?!floor\b|ceiling\b|sqrt\b)[a-z_]\w*\s*\(")
_SYMBOL_NAME = re.compile(r"'[a-z]\w*'")
_FREE = {"metadata", "guards_code", "as_string"}


def scan(path: Path) -> None:
    """Check that an archive holds data only.

    Raises:
        InputError: it is no archive of ``torch.export.save``, or it could run code when loaded.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            reason = _danger(archive)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, NotImplementedError, RecursionError) as error:
        raise InputError(f"{path} is not an archive of torch.export.save") from error
    if reason is not None:
        raise InputError(
            f"{path} {reason}, so loading it could run code that was put in it; "
            "export the model again with torch.export.save, or pass --trust if you trust its origin"
        )


def _danger(archive: zipfile.ZipFile) -> str | None:
    names = archive.namelist()
    if len(set(names)) != len(names):
        return "has two records of one name"
    roots = {name.partition("/")[0] for name in names}
    root = roots.pop()
    if roots or f"{root}/models/model.json" not in names:
        raise KeyError("models/model.json")
    for name in names:
        if not _RECORDS.fullmatch(name.partition("/")[2]):
            return f"holds {name!r}, which is not plain data"
    try:
        torch.load(io.BytesIO(archive.read(f"{root}/data/sample_inputs/model.pt")), weights_only=True)
    except KeyError:
        raise
    except Exception:
        return "has sample inputs that are not plain tensors"
    for kind, prefix in (("weights", "weight_"), ("constants", "tensor_")):
        config = json.loads(archive.read(f"{root}/data/{kind}/model_{kind}_config.json"))["config"]
        for name, entry in config.items():
            if entry.get("use_pickle") or not str(entry.get("path_name")).startswith(prefix):
                return f"keeps {name!r} as a pickle"
    return next(_unsafe(json.loads(archive.read(f"{root}/models/model.json"))), None)


def _unsafe(node: object, key: str = "") -> Iterator[str]:
    """Every string of the graph that could do more than name something."""
    if isinstance(node, dict):
        for name, child in node.items():
            if name not in _FREE:
                yield from _unsafe(str(name), "name")
                yield from _unsafe(child, name)
    elif isinstance(node, list):
        for child in node:
            yield from _unsafe(child, key)
    elif isinstance(node, str):
        if key in ("target", "as_operator"):
            if not _TARGET.fullmatch(node):
                yield f"calls {node[:60]!r}"
        elif key == "expr_str":
            bare = _SYMBOL_NAME.sub("", node)
            if not _EXPRESSION.fullmatch(bare) or _UNSAFE_EXPRESSION.search(bare):
                yield f"has the size expression {node[:60]!r}"
        elif node[:1] in ("[", "{", '"'):
            yield from _unsafe(json.loads(node), key)
        elif not _WORD.fullmatch(node) or node in ("__enum__", "default_factory_module"):
            yield f"has the name {node[:60]!r}"
