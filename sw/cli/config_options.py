"""The options that say which configuration a command takes: ``--preset``, ``--config``, ``--param``."""

import argparse
from typing import TYPE_CHECKING

from vrex.errors import UserError
from vrex.sw.cli.arguments import INPUT_FILE, PathType, param

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vrex.model.config import Config

DEFAULT_PRESET = "edge"


def add_config_options(
    parser: "argparse.ArgumentParser | argparse._ArgumentGroup",
    of: str = "",
    default: str = DEFAULT_PRESET,
    config_type: PathType = INPUT_FILE,
    config_metavar: str = "FILE",
    config_help: str = "your own configuration, a TOML file such as `vrex config` prints",
) -> None:
    """Adds the three options; `load_config` reads them.

    Args:
        parser: gets them.
        of: whose configuration, where not the whole command's, as in "of dre and lxe: ".
        default: what is taken without the three, as the help says it.
        config_type: of the value of ``--config``.
        config_metavar: its name in the help.
        config_help: what it is.
    """
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--preset", metavar="NAME", help=f"{of}one of the configurations that come along (default: {default})"
    )
    either.add_argument("--config", type=config_type, metavar=config_metavar, help=of + config_help)
    parser.add_argument(
        "--param",
        type=param,
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help=f"{of}set a field of preset or file anew, as in hcu.lanes=8 (repeatable)",
    )


def load_config(args: argparse.Namespace, default: str = DEFAULT_PRESET) -> "Config":
    """The configuration that the options choose: a preset, else `default`, or a file, then single fields.

    Raises:
        UserError: there is no such preset, file or field, or a value breaks a rule.
    """
    from vrex.model.config_file import read, with_params

    if args.config is not None:
        return with_params(read(args.config), args.param, str(args.config))
    name = args.preset or default
    return with_params(load_preset(name), args.param, f"preset {name}")


def load_preset(name: str, option: str = "--preset") -> "Config":
    """The configuration of the name that an option gave.

    Raises:
        UserError: there is none; the sentence lists those there are.
    """
    from vrex.model.config import preset

    try:
        return preset(name)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error


def check_units(config: "Config", units: "Sequence[str]") -> None:
    """Sees that a configuration makes all of some units.

    Raises:
        UserError: it makes no LXE, core or chip, which is among them.
    """
    checks = {
        "lxe": ("LXE", config.check_lxe),
        "core": ("core", config.check_core),
        "top": ("chip", config.check_top),
    }
    for unit, (name, check) in checks.items():
        if unit in units:
            try:
                check()
            except ValueError as error:
                raise UserError(f"configuration {config.name} makes no {name}: {error}") from error
