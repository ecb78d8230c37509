"""The list of mutants that are shown to be equivalent, `kept.toml`: each with a sentence that says why."""

from collections.abc import Container
from pathlib import Path

from vrex.errors import UserError
from vrex.tb.regress import UNITS
from vrex.text import from_toml

PATH = Path(__file__).with_name("kept.toml")


def of(unit: str, known: Container[str], path: Path) -> dict[str, str]:
    """The entries of a unit: a sentence for each mutant's name.

    Args:
        unit: a key of `vrex.tb.regress.BENCHES`.
        known: names of the unit's mutants.
        path: the list.

    Raises:
        UserError: the list is no list of this form, or an entry's mutant is gone.
    """
    found: dict[str, str] = {}
    for entry in _entries(path):
        if entry["unit"] != unit:
            continue
        if entry["mutant"] not in known:
            raise UserError(
                f"{path.name} keeps a mutant of unit {unit} that no longer exists, {entry['mutant']!r}; "
                "take the entry out, or give it the mutant's present name"
            )
        found[entry["mutant"]] = entry["why"]
    return found


def _entries(path: Path) -> list[dict[str, str]]:
    try:
        content = from_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the list of equivalent mutants {path} can't be read ({error})") from error
    entries = content.get("equivalent", [])
    for entry in entries if isinstance(entries, list) else [entries]:
        fields = entry if isinstance(entry, dict) else {}
        if set(fields) != {"unit", "mutant", "why"} or not all(
            isinstance(value, str) and value.strip() for value in fields.values()
        ):
            raise UserError(f"{path.name}: an entry needs unit, mutant and why, all text, not {entry!r}")
        if fields["unit"] not in UNITS:
            raise UserError(f"{path.name}: unknown unit {fields['unit']!r}; choose one of {', '.join(UNITS)}")
    return list(entries)
