"""What several subcommands share."""

from typing import TYPE_CHECKING

from vrex.sw.errors import UserError

if TYPE_CHECKING:
    from vrex.model.config import Config

DEFAULT_PRESET = "edge"


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
