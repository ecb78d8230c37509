"""A sweep's description: a TOML file with lists of values, and the design points that they make together."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.sw.perf.description.method import Method, load_method
from vrex.sw.perf.description.sections import DATA, read_toml
from vrex.sw.perf.description.system import ACCELERATOR, System, load_system
from vrex.sw.perf.description.workload import Model, Vision, load_model, load_vision
from vrex.sw.perf.explore import accuracy, design
from vrex.sw.perf.explore.design import Design

DEFAULT = DATA / "explore.toml"
"""What is swept where nobody says what."""
RECORDED = "recorded"
_TOP, _WORKLOAD = ("workload", "sweep"), ("model", "vision", "kv", "batch")
_SWEEP, _OPTIONAL = ("system", "method"), ("hardware", "algorithm")
_RECORDS = (DATA / "area.json", DATA / "accuracy.json", DATA / "calibration.json")

Values = dict[str, list[Any]]


@dataclass(frozen=True)
class Sweep:
    """One entry of `[[sweep]]`: every combination of its values.

    Attributes:
        place: of the entry in the file, for messages.
        systems, methods: by the name that the file gives them.
        hardware, algorithm: values by field.
        recorded: names of recorded settings, in place of the methods' own; empty: none.
    """

    place: str
    systems: dict[str, System]
    methods: dict[str, Method]
    hardware: Values
    algorithm: Values
    recorded: list[str]


@dataclass(frozen=True)
class Spec:
    """A whole file, read and checked.

    Attributes:
        path: of the file.
        models, visions: by the name that the file gives them.
        kv, batch: lists.
        sweeps: in order.
    """

    path: Path
    models: dict[str, Model]
    visions: dict[str, Vision]
    kv: list[int]
    batch: list[int]
    sweeps: list[Sweep]

    def files(self) -> list[Path]:
        """Files of the user's that the spec names, to be read."""
        chosen = [*self.models, *self.visions]
        for sweep in self.sweeps:
            chosen += [*sweep.systems, *sweep.methods]
        return [Path(name) for name in dict.fromkeys(chosen) if name.endswith(".toml")]

    def designs(self) -> list[Design]:
        """All points, each once; those of the same hardware stand together.

        Raises:
            UserError: a combination makes no system.
        """
        found: dict[str, Design] = {}
        for sweep in self.sweeps:
            for one in self._points(sweep):
                found.setdefault(one.id, one)
        return list(found.values())

    def _points(self, sweep: Sweep) -> Iterator[Design]:
        for (name, system), changes in itertools.product(sweep.systems.items(), _combined(sweep.hardware)):
            changed, core = design.change_hardware(system, changes, self.path, f"{sweep.place}.hardware")
            methods = list(_methods(sweep))
            for (of, method, recorded), (model, shape), (tower, vision), kv, batch in itertools.product(
                methods, self.models.items(), self.visions.items(), self.kv, self.batch
            ):
                yield Design(
                    names=(name, of, model, tower),
                    system=changed,
                    core=core,
                    method=method,
                    model=shape,
                    vision=vision,
                    kv=kv,
                    batch=batch,
                    recorded=recorded,
                )


def digest(designs: list[Design]) -> str:
    """A hash of all points and of the records that their figures come from."""
    found = hashlib.sha256()
    for one in designs:
        found.update(one.id.encode())
    for path in _RECORDS:
        found.update(path.read_bytes())
    return found.hexdigest()


def _combined(values: Values) -> Iterator[dict[str, Any]]:
    for chosen in itertools.product(*values.values()):
        yield dict(zip(values, chosen, strict=True))


def _methods(sweep: Sweep) -> Iterator[tuple[str, Method, str | None]]:
    """Name, method and recorded setting of every combination."""
    settings = accuracy.records()
    for name, method in sweep.methods.items():
        chosen: list[str | None] = [entry for entry in sweep.recorded if settings[entry].fits(method)]
        for recorded in chosen or [None]:
            given = settings[recorded].applied(method) if recorded else method
            for changes in _combined(sweep.algorithm):
                yield name, design.change_method(given, changes), recorded


# -- reading ---------------------------------------------------------------------------------------------


def load_spec(path: Path) -> Spec:
    """Reads a file.

    Raises:
        UserError: a field is missing, unknown or wrong, or names something unknown; it names file and field.
    """
    content = read_toml(path)
    _check_names(path, "", content, _TOP)
    workload, entries = content["workload"], content["sweep"]
    _check_table(path, "workload", workload)
    _check_names(path, "workload.", workload, _WORKLOAD)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: field sweep is no list of tables; write [[sweep]] above each")
    return Spec(
        path=path,
        models=_named(path, "workload.model", workload["model"], load_model),
        visions=_named(path, "workload.vision", workload["vision"], load_vision),
        kv=_counts(path, "workload.kv", workload["kv"], 0),
        batch=_counts(path, "workload.batch", workload["batch"], 1),
        sweeps=[_sweep(path, f"sweep[{number}]", entry) for number, entry in enumerate(entries)],
    )


def _sweep(path: Path, place: str, entry: object) -> Sweep:
    _check_table(path, place, entry)
    assert isinstance(entry, dict)
    _check_names(path, f"{place}.", entry, _SWEEP, _OPTIONAL)
    systems = _named(path, f"{place}.system", entry["system"], load_system)
    methods = _named(path, f"{place}.method", entry["method"], load_method)
    for name in _OPTIONAL:
        _check_table(path, f"{place}.{name}", entry.get(name, {}))
    for (system, found), (method, how) in itertools.product(systems.items(), methods.items()):
        if how.predictor == "dre" and found.compute.kind != ACCELERATOR:
            raise UserError(
                f"{path}: field {place}.method: {method} needs a V-Rex, but {system} is a GPU; "
                "give them a [[sweep]] each"
            )
    hardware = _flat(entry.get("hardware", {}))
    for name, values in hardware.items():
        where = f"{place}.hardware.{name}"
        for value, system in itertools.product(_list(path, where, values), systems.values()):
            if wrong := design.complaint(name, value, system):
                raise UserError(f"{path}: field {where} = {value!r} {wrong}; correct it")
    algorithm = dict(entry.get("algorithm", {}))
    recorded = _recorded(path, f"{place}.algorithm.{RECORDED}", algorithm.pop(RECORDED, []), methods)
    _check_algorithm(path, f"{place}.algorithm", algorithm)
    return Sweep(place, systems, methods, hardware, algorithm, recorded)


def _check_algorithm(path: Path, place: str, algorithm: Values) -> None:
    for name, values in algorithm.items():
        where, rule = f"{place}.{name}", design.method_rule(name)
        if rule is None:
            known = ", ".join((RECORDED, *design.METHOD_FIELDS))
            raise UserError(f"{path}: field {where} is unknown; known are {known}")
        for value in _list(path, where, values):
            if wrong := rule.complaint(value):
                raise UserError(f"{path}: field {where} = {value!r} {wrong}; correct it")


def _recorded(path: Path, where: str, values: object, methods: Mapping[str, Method]) -> list[str]:
    """Names of records; `all` stands for every one that fits a method."""
    settings = accuracy.records()
    if values == "all":
        return [name for name, entry in settings.items() if any(map(entry.fits, methods.values()))]
    if values == []:
        return []
    for name in _list(path, where, values):
        if name not in settings:
            raise UserError(
                f'{path}: field {where}: {name!r} is unknown; known are {", ".join(settings)}, or "all"'
            )
        if not any(settings[name].fits(method) for method in methods.values()):
            raise UserError(f"{path}: field {where}: {name} fits none of {', '.join(methods)}; leave it out")
    assert isinstance(values, list)
    return values


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """`compute.cores = [4]` is a table in a table for TOML; here it is one name."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return found


def _check_table(path: Path, place: str, value: object) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{path}: field {place} is no table; write [{place.split('[')[0]}] above its fields")


def _check_names(
    path: Path,
    place: str,
    table: Mapping[str, Any],
    needed: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> None:
    for name in table:
        if name not in needed + optional:
            known = ", ".join(needed + optional)
            raise UserError(f"{path}: field {place}{name} is unknown; known are {known}")
    for name in needed:
        if name not in table:
            raise UserError(f"{path}: field {place}{name} is missing; add it")


def _list(path: Path, where: str, values: object) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise UserError(f"{path}: field {where} is no list of values; write them in brackets")
    for place, value in enumerate(values):
        if value in values[:place]:
            raise UserError(f"{path}: field {where} has {value!r} twice; leave one out")
    return values


def _named(path: Path, where: str, values: object, load: Any) -> dict[str, Any]:
    found = {}
    for name in _list(path, where, values):
        if not isinstance(name, str):
            raise UserError(f"{path}: field {where} = {name!r} is not a word in quotes; correct it")
        try:
            found[name] = load(name)
        except UserError as error:
            raise UserError(f"{path}: field {where}: {error}") from error
    return found


def _counts(path: Path, where: str, values: object, least: int) -> list[int]:
    for value in _list(path, where, values):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(
                f"{path}: field {where} = {value!r} is not a whole number of at least {least}; correct it"
            )
    assert isinstance(values, list)
    return values
