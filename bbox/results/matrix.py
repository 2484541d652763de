"""Defenses against attacks: a matrix of ordinary runs, each in a folder of its own. Killed at any moment, it can go on.

run.json          what was asked, which rows and cells it makes, fingerprints
ROW/defense.json  the row's defenses as a bundle, so that defended:FOLDER/ROW is the target that was attacked
ROW/row.json      clean traffic and latency
ROW/ATTACK/       the run folder of a cell
matrix.json       the figures, written when every cell is complete
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bbox import data as data_module
from bbox.attacks import make_attack
from bbox.data.base import Dataset
from bbox.defenses import bundle
from bbox.errors import InputError, UsageError
from bbox.files import refuse_taken, write_whole
from bbox.results.fits import only_images
from bbox.results.matrix_figures import SCHEMA_VERSION, finished, matrix_figures, read_matrix
from bbox.results.matrix_plan import Cell, Layers, Request, Row, bundle_name, plan_rows, split_list
from bbox.results.metrics import default_epsilons
from bbox.results.plan import Plan, prepare
from bbox.results.records import Config
from bbox.results.row_costs import measure_row
from bbox.results.run import Progress, execute
from bbox.results.session import check_same, describe_run, load_target
from bbox.results.store import RunFolder, StorageError
from bbox.targets.base import Target

__all__ = [
    "Matrix",
    "Watch",
    "cell_folder",
    "evaluate_defenses",
    "execute_matrix",
    "plan_matrix",
    "resume_matrix",
    "write_text",
]

Watch = Callable[[Row, Cell], AbstractContextManager[Callable[[Progress], None]]]


@dataclass(frozen=True)
class Matrix:
    """A matrix that has been checked and not yet started, or is to go on.

    Attributes:
        bare: the target without a defense; images: the data, of which ``request.config`` selects the attacked ones.
        layers: the defenses of each row, by its name.
    """

    request: Request
    bare: Target
    images: Dataset
    rows: tuple[Row, ...]
    layers: Mapping[str, Layers]

    def target(self, row: Row, name: str) -> Target:
        """The row's target, which remembers nothing."""
        bare = self.bare.fresh()
        if not self.layers[row.name]:
            return bare
        defended = bundle.wrap_all(bare, [defense for _, defense in self.layers[row.name]])
        defended.name = name
        return defended


def evaluate_defenses(
    defenses: str, attacks: str, *, out: str | Path, watch: Watch | None = None, **config: Any
) -> dict[str, Any]:
    """Run each attack, and its adaptive versions, on a target with each defense and without; goes on where it stopped.

    Args:
        defenses: comma-separated stacks, such as ``"noise,jpeg+noise:sigma=0.05,defended:RUN"``.
        attacks: comma-separated attacks, such as ``"cgba,square,foolbox:HopSkipJumpAttack"``.
        out: the matrix's folder; one that exists is gone on with, with the config that it began with.
        config: fields of ``bbox.results.Config``: target, data, limit, budget, epsilons, norm, seed, ...

    Returns: the content of ``matrix.json`` (``bbox/results/matrix.schema.json``).

    Raises:
        UsageError, InputError, TargetError: see ``plan_matrix``, ``execute_matrix``.
    """
    path = Path(out)
    if (path / "run.json").exists():
        matrix, resume = resume_matrix(path), True
        began = matrix.request.defenses, matrix.request.attacks
        if began != (split_list(defenses), split_list(attacks)):
            raise UsageError(
                f"{path} is a matrix of {','.join(began[0])} against {','.join(began[1])}; give another out"
            )
    else:
        matrix, resume = plan_matrix(Request(split_list(defenses), split_list(attacks), Config(**config))), False
    return execute_matrix(matrix, path, resume=resume, command="bbox.evaluate_defenses", threads=None, watch=watch)


def plan_matrix(request: Request, *, bare: Target | None = None, images: Dataset | None = None) -> Matrix:
    """Load target and data, and check every name, option, norm and stack. Asks nothing.

    Args:
        bare, images: instead of those that ``request.config`` names.

    Raises:
        UsageError, InputError: in one line, what does not fit.
    """
    bare, images = bare or load_target(request.config), images or _images(request.config)
    epsilons = request.config.epsilons or default_epsilons(images.inputs.shape[1:], request.config.norm)
    request = replace(request, config=replace(request.config, epsilons=tuple(epsilons)))
    rows, layers = plan_rows(request, bare)
    return Matrix(request, bare, images, rows, layers)


def resume_matrix(path: Path, *, bare: Target | None = None, images: Dataset | None = None, **changed: Any) -> Matrix:
    """The matrix of a folder, to go on with; ``changed`` (device, max_requests ...) replaces fields of its config.

    Raises:
        InputError: no matrix there, or the target or the data have changed since.
    """
    run = read_matrix(path)
    config = replace(Config.from_json(run["config"]), **changed)
    request = Request(tuple(run["defenses"]), tuple(run["attacks"]), config)
    bare, images = bare or load_target(config), images or _images(config)
    selected = images.select(limit=config.limit, indices=config.indices)
    for what, key, now in (
        (config.target, "target", bare.fingerprint()),
        (config.data, "data", selected.fingerprint()),
    ):
        if run[key]["fingerprint"] != now:
            raise InputError(f"{what} has changed since {path} began; start a new matrix")
    rows = tuple(Row.from_json(row) for row in run["rows"])
    layers = {row.name: bundle.load_layers(path / row.folder)[1] if row.layers else () for row in rows}
    return Matrix(request, bare, images, rows, layers)


def execute_matrix(
    matrix: Matrix,
    path: Path,
    *,
    resume: bool = False,
    command: str = "",
    threads: int | Literal["auto"] | None = "auto",
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Run the cells that are not finished, row by row, and measure each row's clean traffic.

    Args:
        threads: torch threads; ``"auto"`` measures them once, in the first cell that runs.
        watch: called for each cell that runs; the context it gives is told of each forward.

    Raises:
        TargetError: the target failed; the folder keeps what was answered.
    """
    first = None
    used = _requests(matrix, path)
    if not resume:
        first = _begin(matrix, path, command)
    for row in matrix.rows:
        for cell in row.cells:
            where = path / cell.path
            if cell.reason or finished(where):
                continue
            plan = first or _prepare(matrix, row, cell, path, used)
            first = None
            with cell_folder(where, plan, command) as folder, watch(row, cell) if watch else nullcontext() as report:
                execute(plan, folder, on_progress=report, threads=threads)
            used = used if plan.purse is None else plan.purse.used
            threads = None if threads == "auto" else threads
        if not (path / row.folder / "row.json").exists():
            used, measured = _measure(matrix, row, path, used)
            _write(path / row.folder / "row.json", measured)
    results = matrix_figures(path)
    _write(path / "matrix.json", results)
    return results


def _measure(matrix: Matrix, row: Row, path: Path, used: int) -> tuple[int, dict[str, Any]]:
    """How many requests are used then, and what a row costs on clean traffic. A cell's folder keeps the number."""
    config, bare = matrix.request.config, matrix.bare
    defended = matrix.target(row, bundle_name(path / row.folder)) if row.layers else bare
    cell = next((cell for cell in row.cells if (path / cell.path / "run.json").exists()), None)
    with nullcontext() if cell is None else RunFolder.open(path / cell.path) as folder:
        purse = config.purse(used, None if folder is None else folder.write_requests)
        terms = config.terms(purse)
        with terms.settled():
            measured = measure_row(
                bare,
                defended,
                matrix.images,
                max_batch=config.max_batch or 128,
                quantize=config.quantize,
                terms=terms,
            )
        return used if purse is None else purse.used, measured


def _requests(matrix: Matrix, path: Path) -> int:
    """Requests that earlier sessions have used: each cell keeps the number of all until its end."""
    most = 0
    for where in (path / cell.path for row in matrix.rows for cell in row.cells):
        if (where / "run.json").exists():
            with RunFolder.open(where) as folder:
                most = max(most, folder.requests())
    return most


def _begin(matrix: Matrix, path: Path, command: str) -> Plan:
    """Make the folder; the plan of the first cell, whose checks have passed."""
    refuse_taken(path)
    row = matrix.rows[0]
    plan = _prepare(matrix, row, next(cell for cell in row.cells if not cell.reason), path)
    config, request = matrix.request.config, matrix.request
    for row in matrix.rows:
        if row.layers:
            bundle.save(
                path / row.folder,
                matrix.layers[row.name],
                matrix.bare,
                options=config.target_options,
                trust=config.trust,
            )
    described = describe_run(replace(plan, config=config), command)
    _write(
        path / "run.json",
        {
            "kind": "matrix",
            "matrix_version": SCHEMA_VERSION,
            "defenses": list(request.defenses),
            "attacks": list(request.attacks),
            **described,
            "rows": [row.to_json() for row in matrix.rows],
        },
    )
    return plan


def _prepare(matrix: Matrix, row: Row, cell: Cell, path: Path, used: int = 0) -> Plan:
    config = replace(matrix.request.config, attack=cell.name, attack_options=dict(cell.options), epsilons=cell.epsilons)
    name = bundle_name(path / row.folder)
    if row.layers:  # the bundle knows the options of its black box
        config = replace(config, target=name, target_options={})
    attack, target = make_attack(cell.name, cell.options), matrix.target(row, name)
    return prepare(config, attack, target, matrix.images, used_requests=used)


def cell_folder(where: Path, plan: Plan, command: str) -> RunFolder:
    """The run folder of a cell, begun or gone on with."""
    if (where / "run.json").exists():
        folder = RunFolder.open(where)
        check_same(plan, folder)
        return folder
    if where.exists():  # killed while it was made: nothing was asked yet
        shutil.rmtree(where)
    return RunFolder.create(where, describe_run(plan, command))


def _images(config: Config) -> Dataset:
    labels = None if config.labels is None else Path(config.labels)
    return only_images(data_module.load(config.data, size=config.image_size, labels=labels))


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, and its folder where there is none.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"cannot write {path}: {reason}; make room and go on with --resume") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
