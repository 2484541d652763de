"""``bbox list``: what there is, and what each needs."""

from __future__ import annotations

import json as json_module

import click
from rich.markup import escape
from rich.table import Table

from bbox.cli.console import console

__all__ = ["listing"]

_KINDS = ("attacks", "defenses", "targets", "data")


@click.command()
@click.argument("kind", required=False, type=click.Choice(_KINDS))
@click.option("--json", is_flag=True, help="Print the list as JSON on stdout.")
def listing(kind: str | None, json: bool) -> None:
    """List attacks, defenses, targets and data, with what each needs."""
    found = [row for row in _rows() if kind in (None, row["kind"])]
    if json:
        click.echo(json_module.dumps(found))
        return
    for name in _KINDS if kind is None else (kind,):
        table = Table(title=name, title_justify="left", box=None, pad_edge=False)
        for column in ("name", "what", "needs"):
            table.add_column(column, overflow="fold")
        for row in found:
            if row["kind"] == name:
                # Plain text: as markup, rich would take the extra in "bbox-toolkit[demo]" for a style.
                table.add_row(*(escape(row[key] or "-") for key in ("name", "summary", "needs")))
        if table.row_count == 0:
            table.add_row("none yet", "", "")
        console(stdout=True).print(table, end="\n\n" if kind is None else "\n")


def _rows() -> list[dict[str, str]]:
    from bbox.attacks import ATTACKS, WRAPPERS
    from bbox.defenses import DEFENSES
    from bbox.targets import KINDS
    from bbox.zoo import DATA, TARGETS

    rows: list[dict[str, str]] = []

    def add(kind: str, name: str, summary: str, needs: object) -> None:
        rows.append({"kind": kind, "name": name, "summary": summary, "needs": str(needs or "")})

    for name in ATTACKS.names():
        add("attacks", name, ATTACKS.entry(name).summary, ATTACKS.entry(name).needs)
    add("attacks", "foolbox:CLASS", "any decision-based attack of foolbox, under the same budget", "")
    for name in WRAPPERS.names():
        add("attacks", f"{name}:ATTACK", f"any attack, {WRAPPERS.entry(name).summary}", "")
    for name in DEFENSES.names():
        add("defenses", name, DEFENSES.entry(name).summary, DEFENSES.entry(name).needs)
    told = "code: train a transformers classifier on adversarial examples of its own training set (not black-box)"
    add("defenses", "adversarial-finetune", told, "bbox-toolkit[code,finetune]")
    for zoo_entry in TARGETS.values():
        add("targets", f"zoo:{zoo_entry.name}", f"{zoo_entry.summary} ({zoo_entry.accuracy})", zoo_entry.needs)
    for name in KINDS.names():
        if name != "zoo":
            # "onnx:PATH, an ONNX file" says how it is typed; a plug-in's summary may be of another form.
            form, _, what = KINDS.entry(name).summary.partition(", ")
            row = (form, what) if form.startswith(f"{name}:") else (f"{name}:...", KINDS.entry(name).summary)
            add("targets", *row, KINDS.entry(name).needs)
    for zoo_entry in DATA.values():
        add("data", f"zoo:{zoo_entry.name}", zoo_entry.summary, zoo_entry.needs)
    add("data", "foolbox:NAME", "20 samples each of mnist, fashionMNIST, cifar10, cifar100, imagenet", "")
    add("data", "coop:FILE.json", "a split file of CoOp or Dassl; options split=train, val or test, root=FOLDER", "")
    add("data", "code:PATH", "programs: .jsonl, .csv, .txt of pairs or of Google Code Jam, a folder, a file", "")
    add("data", "motion:PATH", "skeleton motion: BVH, NTU .skeleton, Kinetics JSON, .npz, .npy; a file or a folder", "")
    add("data", "FOLDER", "class subfolders of images, or images with labels.csv (or --labels FILE)", "")
    add("data", "FILE.npz, .npy, .safetensors", "arrays: inputs or images or x, labels or y", "")
    return rows
