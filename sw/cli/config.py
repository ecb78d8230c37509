"""vrex config: print a configuration as a TOML file, to change and to give to other commands."""

import argparse

from vrex.sw.cli.config_options import add_config_options, load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex config``."""
    add_config_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Prints the file, each field with its meaning and range.

    Raises:
        UserError: there is no such configuration, or it breaks a rule.
    """
    from vrex.model.config_file import to_toml

    print(to_toml(load_config(args)), end="")
    return 0
