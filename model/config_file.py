"""Configurations of one's own: TOML files, single fields set anew, and the reference of all fields."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.model.config import LXE_RELATIONS, PRESETS, RELATIONS, Config, preset
from vrex.model.config_rules import Section, is_whole, sections, spec_of, summary
from vrex.text import from_toml

VERSION = 1
"""Of the file format: the fields that there are and what they mean."""

MOST_BYTES = 1 << 20
"""Of a file that is read; a configuration has some three thousand."""

_HEAD = """\
# A configuration of vrex, as `vrex config` prints it. Change what you like, and give the file to
# `vrex generate`, `regress`, `synth`, `bench` or `run` with --config FILE. Every field must be there.
"""


def load(chosen: str | Path | Config) -> Config:
    """A configuration by the name of a preset, by a file (a path, or a name ending in `.toml`), or itself.

    Raises:
        UserError: no such preset, or the file is not what it should be.
    """
    if isinstance(chosen, Config):
        return chosen
    if isinstance(chosen, Path) or chosen.endswith(".toml"):
        return read(Path(chosen))
    try:
        return preset(chosen)
    except ValueError as error:
        raise UserError(str(error)) from error


def read(path: Path) -> Config:
    """The configuration of a TOML file; one that says it is a preset and is not gets a name of its own.

    Raises:
        UserError: the file can't be read, is not TOML in UTF-8 or of another version, lacks a field, has one
            too many, or a value breaks a rule. The sentence names file, field, value and rule.
    """
    plain = _parse(path)
    version = plain.pop("version", None)
    if version is None:
        raise UserError(f"{path}: version is missing; it must be {VERSION}")
    if not is_whole(version) or version != VERSION:
        raise UserError(
            f"{path}: version must be {VERSION}, the format that this vrex reads, not {version!r}"
        )
    _check_fields(path, Config, plain, "")
    for name, section in sections(Config).items():
        if not isinstance(plain[name], dict):
            raise UserError(f"{path}: {name} must be a table of fields, [{name}], not {plain[name]!r}")
        _check_fields(path, section, plain[name], f"{name}.")
    return distinct(_made(plain, str(path)), PRESETS)


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise UserError(f"configuration {path} cannot be read ({reason}); name a TOML file") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"configuration {path} is larger than {MOST_BYTES} bytes; name a smaller TOML file")
    try:
        return from_toml(content.decode())
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8, as TOML must be: byte {error.start} is not") from error
    except ValueError as error:
        raise UserError(f"{path} is not TOML: {' '.join(str(error).split())}") from error


def _check_fields(path: Path, section: type[Section], plain: dict[str, Any], prefix: str) -> None:
    """Sees that a table holds the section's fields and nothing else."""
    known = [field.name for field in dataclasses.fields(section)]
    for name in plain:
        if name not in known:
            shown = name if name.isidentifier() else repr(name)
            raise UserError(f"{path}: {prefix}{shown} is no field; choose from {', '.join(known)}")
    for field in dataclasses.fields(section):
        if field.name not in plain:
            found = spec_of(field)
            rule = "give the table of its fields" if found is None else f"give {found.rule.describe()}"
            raise UserError(f"{path}: {prefix}{field.name} is missing; {rule}")


def _made(plain: dict[str, Any], source: str) -> Config:
    try:
        return Config.from_dict(plain)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error


def with_params(config: Config, params: Iterable[tuple[str, int | str]], source: str) -> Config:
    """A configuration with some fields set anew, all at once.

    Unless `name` is among them, a configuration that they change gets a name of its own.

    Args:
        config: to start from.
        params: (field, value), as in `("hcu.lanes", 8)`; an int may be given in decimal digits.
        source: where the configuration came from, for messages.

    Raises:
        UserError: there is no such field, it is set twice, or a value breaks a rule.
    """
    plain = config.to_dict()
    words: dict[str, str] = {}
    for path, value in params:
        if path in words:
            raise UserError(f"{path}={value} sets {path} a second time; leave one of the two out")
        words[path] = f"{path}={value}"
        *section, name = path.split(".")
        table = plain if not section else plain.get(".".join(section))
        if not isinstance(table, dict) or isinstance(table.get(name, {}), dict):
            raise UserError(f"{source} has no field {path!r}; choose from {_choices(plain, path)}")
        table[name] = _int_of(value) if isinstance(table[name], int) else value
    if not words:
        return config
    made = _made(plain, f"{source} with {', '.join(words.values())}")
    if "name" in words or made == config:
        return distinct(made, PRESETS)
    return _renamed(made)


def _int_of(value: int | str) -> int | str:
    """The number that decimal digits are; everything else is left to the rules."""
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit() and len(value) < 20:
        return int(value)
    return value


def _choices(plain: dict[str, Any], path: str) -> str:
    """The fields of the section that a path names, or all sections and fields outside them."""
    name = path.partition(".")[0]
    table = plain.get(name)
    if isinstance(table, dict):
        return ", ".join(f"{name}.{field}" for field in table)
    return ", ".join(f"{field}.*" if isinstance(value, dict) else field for field, value in plain.items())


def distinct(config: Config, known: Mapping[str, Config]) -> Config:
    """A configuration, renamed if it has the name of a known one and is another.

    Results and logs are filed by name, so that one name must not stand for two things.
    """
    return _renamed(config) if known.get(config.name, config) != config else config


def _renamed(config: Config) -> Config:
    """A configuration whose name ends in a digest of its values, as in `edge-5d41402a`."""
    plain = config.to_dict()
    base = plain.pop("name")
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
    return dataclasses.replace(config, name=f"{base[:55]}-{digest}")


def own_config(config: Config) -> dict[str, Any]:
    """What figures say of a configuration beside its name: nothing of a preset, else `config`, all of it."""
    return {} if PRESETS.get(config.name) == config else {"config": config.to_dict()}


def to_toml(config: Config) -> str:
    """The file that `read` takes, with each field's meaning and rule as comments."""
    lines = [_HEAD, "# Version of the file format.", f"version = {VERSION}", ""]
    lines += _toml_fields(config)
    for name, section in sections(Config).items():
        lines += [f"# {summary(section)}", f"[{name}]", *_toml_fields(getattr(config, name))]
    lines += ["# Rules about several fields:"]
    lines += [f"# - {relation.text}" for relation in RELATIONS]
    lines += [f"# - for an LXE, {relation.text}" for relation in LXE_RELATIONS]
    return "\n".join(lines) + "\n"


def _toml_fields(section: Section) -> Iterator[str]:
    for field in dataclasses.fields(section):
        found = spec_of(field)
        if found is not None:
            value = getattr(section, field.name)
            yield f"# {found.meaning[:1].upper()}{found.meaning[1:]}."
            yield f"# Must be {found.rule.describe()}."
            # A JSON string is a TOML string, and so is a number.
            yield f"{field.name} = {json.dumps(value)}"
            yield ""


def reference() -> str:
    """All fields in Markdown: a table for each section with meaning, rule and the presets' values."""
    parts = [f"Version of the file format: {VERSION}.\n", _table(Config, "")]
    parts += [
        f"## `{name}`\n\n{summary(section)}\n\n{_table(section, name)}"
        for name, section in sections(Config).items()
    ]
    rules = [f"- {relation.text}" for relation in RELATIONS]
    rules += [f"- For an LXE, {relation.text}" for relation in LXE_RELATIONS]
    return "\n".join([*parts, "## Rules about several fields\n", *rules]) + "\n"


def _table(section: type[Section], name: str) -> str:
    rows = [["Field", "Meaning", "Must be", *(f"`{preset_name}`" for preset_name in PRESETS)]]
    rows += [["---"] * 3 + ["--:"] * len(PRESETS)]
    for field in dataclasses.fields(section):
        found = spec_of(field)
        if found is not None:
            path = f"{name}.{field.name}".removeprefix(".")
            values = [_at(config, path) for config in PRESETS.values()]
            rows.append([f"`{path}`", found.meaning, found.rule.describe(), *values])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _at(config: Config, path: str) -> str:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return str(value)
