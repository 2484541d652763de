"""A defended model on disk: ``defense.json`` and safetensors, which load back as the target ``defended:PATH``.

The bundle holds what stands around the black box, and the black box's name and fingerprint; never the black box.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from bbox import targets
from bbox.defenses import make_defense
from bbox.defenses.base import Defense
from bbox.errors import InputError, UsageError
from bbox.files import write_whole
from bbox.registry import check_options
from bbox.targets.base import Target

__all__ = ["load", "load_layers", "parse_stack", "save", "wrap_all"]

SCHEMA_VERSION = 1
_FILE = "defense.json"


def wrap_all(target: Target, layers: Sequence[Defense]) -> Target:
    """Put defenses around a target, the first one innermost."""
    for layer in layers:
        target = layer.wrap(target)
    return target


def parse_stack(text: str) -> list[tuple[str, Defense]]:
    """Defenses from text: ``noise``, ``noise:sigma=0.05``, ``jpeg+noise`` (the last one outermost), ``defended:RUN``.

    Returns: (name, defense) pairs, innermost first.

    Raises:
        UsageError: an unknown name or option, or a defense that must be fitted first.
        InputError: a bundle was read and refused.
    """
    found: list[tuple[str, Defense]] = []
    for part in text.split("+"):
        if part.startswith("defended:"):
            found += load_layers(Path(part.removeprefix("defended:")))[1]
            continue
        name, *options = part.strip().split(":")
        pairs = {}
        for option in options:
            key, equals, value = option.partition("=")
            if not equals or not key:
                raise UsageError(f"{part!r}: {option!r} is no option; write {name}:KEY=VALUE")
            pairs[key.replace("-", "_")] = value
        defense = make_defense(name, pairs)
        if defense.trained:
            raise UsageError(f"{name} must be fitted: bbox defend {name} --target ..., then defended:RUN stands for it")
        found.append((name, defense))
    return found


def save(
    folder: Path,
    layers: Sequence[tuple[str, Defense]],
    target: Target,
    *,
    options: Mapping[str, object] | None = None,
    trust: bool = False,
) -> None:
    """Write the bundle; whole or not at all, so that a crash leaves no half of it.

    Args:
        layers: (name, defense), innermost first; target: the black box that they stand around.
        options, trust: what the black box was loaded with.

    Raises:
        UsageError: an option is an object that JSON cannot hold, as a module given to a library call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = []
    for place, (name, defense) in enumerate(layers):
        structure, tensors = defense.state()
        entry: dict[str, Any] = {"name": name, "options": _options(name, defense), "structure": dict(structure)}
        if tensors:
            entry["weights"] = f"{place}-{name}.safetensors"
            kept = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            write_whole(folder / str(entry["weights"]), safetensors.torch.save(kept))
        described.append(entry)
    content = {
        "schema_version": SCHEMA_VERSION,
        "target": {
            "spec": target.name,
            "options": {key: str(value) for key, value in (options or {}).items()},
            "trust": trust,
            "fingerprint": target.fingerprint(),
        },
        "layers": described,
    }
    write_whole(folder / _FILE, json.dumps(content, indent=2) + "\n")


def load_layers(folder: Path) -> tuple[dict[str, Any], list[tuple[str, Defense]]]:
    """What a bundle says of its black box, and its defenses, innermost first.

    Raises:
        InputError: no bundle, or one that cannot be read.
    """
    try:
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no {_FILE}; a defended model is the folder that bbox defend wrote") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / _FILE} cannot be read: {error}") from error
    layers = []
    try:
        if content["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"{folder} has schema {content['schema_version']}, this bbox reads {SCHEMA_VERSION}")
        for entry in content["layers"]:
            defense = make_defense(entry["name"], entry["options"])
            if "weights" in entry:
                stored = safetensors.torch.load_file(folder / Path(entry["weights"]).name)
                # Copies: tensors in a file lie at any address, and torch rounds differently where they are not aligned.
                weights = {name: tensor.clone() for name, tensor in stored.items()}
                defense.restore(entry["structure"], weights)
            layers.append((str(entry["name"]), defense))
        black_box: dict[str, Any] = content["target"]
        if not {"spec", "fingerprint"} <= black_box.keys():
            raise KeyError("spec or fingerprint")
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / _FILE} is not complete: {error!r}") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{folder}: the weights cannot be read: {error}") from error
    return black_box, layers


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> Target:
    """Load ``defended:PATH``: the black box by the name it had, and the defenses around it.

    Args:
        options: ``target=SPEC`` where the black box has another name now; ``same=false`` to accept another black box
            than the defense was fitted to.

    Raises:
        InputError: no bundle there, or the black box is another one than it was.
        UsageError: the black box cannot be loaded by its name.
    """
    check_options(f"defended:{reference}", options, ("target", "same"))
    black_box, layers = load_layers(Path(reference))
    spec = str(options.get("target", black_box["spec"]))
    if black_box.get("trust") and not trust:
        raise UsageError(f"the black box {spec} of {reference} was loaded with --trust; give it again")
    given = {} if "target" in options else black_box.get("options", {})
    target = targets.load(spec, options=given, trust=trust, device=device)
    same = str(options.get("same", "true")).lower() not in ("false", "no", "0")
    if same and target.fingerprint() != black_box["fingerprint"]:
        raise InputError(
            f"{spec} is not the black box that {reference} was fitted to (its fingerprint differs); "
            "fit again, or say --set same=false"
        )
    defended = wrap_all(target, [defense for _, defense in layers])
    defended.name = f"defended:{reference}"
    return defended


def _options(name: str, defense: Defense) -> dict[str, Any]:
    options = {f.name: getattr(defense, f.name) for f in fields(defense) if f.init}  # type: ignore[arg-type]
    for option, value in options.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise UsageError(
                f"{name}: {option} is a {type(value).__name__} of this program, which a bundle cannot keep; "
                "give it by its name"
            ) from error
    return options
