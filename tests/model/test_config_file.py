"""Own configurations: TOML files, single fields, and what is said of bad ones."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from vrex.errors import UserError
from vrex.model import config_file
from vrex.model.config import LXE_RELATIONS, PRESETS, RELATIONS, Config, HcuConfig, preset
from vrex.model.config_rules import Section, sections, spec_of

LANES = "lanes = 4\n\n# Width of one"
"""The end of the first field of section hcu."""


SECTIONS: dict[str, type[Section]] = {"": Config, **sections(Config)}


def _fields() -> list[str]:
    """All fields, as in `hcu.lanes`."""
    return [
        f"{name}.{field.name}".removeprefix(".")
        for name, section in SECTIONS.items()
        for field in dataclasses.fields(section)
        if spec_of(field)
    ]


def _changed(old: str, new: str) -> str:
    """Preset tiny's file with one change; `old` occurs once."""
    text = config_file.to_toml(preset("tiny"))
    assert text.count(old) == 1
    return text.replace(old, new)


@pytest.mark.parametrize("name", PRESETS)
def test_a_file_holds_a_preset(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(config_file.to_toml(preset(name)), encoding="utf-8")
    assert config_file.read(path) == config_file.load(str(path)) == config_file.load(path) == preset(name)


def test_a_file_explains_every_field() -> None:
    text = config_file.to_toml(preset("edge"))
    plain = tomllib.loads(text)
    assert plain.pop("version") == config_file.VERSION
    assert plain == preset("edge").to_dict()
    for name, section in SECTIONS.items():
        part = text.partition(f"[{name}]")[2] if name else text
        for field in dataclasses.fields(section):
            if found := spec_of(field):
                comment, _, _ = part.partition(f"\n{field.name} = ")
                meaning, rule = comment.splitlines()[-2:]
                assert meaning.lower() == f"# {found.meaning.lower()}."
                assert rule == f"# Must be {found.rule.describe()}."
    assert all(relation.text in text for relation in (*RELATIONS, *LXE_RELATIONS))


def test_docstrings_and_reference_agree_with_the_checks() -> None:
    reference = config_file.reference()
    for section in SECTIONS.values():
        assert section.__doc__
        for field in dataclasses.fields(section):
            if found := spec_of(field):
                assert f"    {field.name}: {found.meaning}; {found.rule.describe()}." in section.__doc__
                assert f"| {found.meaning} | {found.rule.describe()} |" in reference
    for name in _fields():
        assert f"| `{name}` |" in reference


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (_changed(LANES, LANES.replace("4", "7")), "hcu.lanes must be a power of two from 1 to 64, not 7"),
        (
            _changed(LANES, LANES.replace("4", "4.0")),
            "hcu.lanes must be a power of two from 1 to 64, not 4.0",
        ),
        (
            _changed(LANES, LANES.replace("4", "true")),
            "hcu.lanes must be a power of two from 1 to 64, not True",
        ),
        (
            _changed(LANES, LANES.replace("4", '"4"')),
            "hcu.lanes must be a power of two from 1 to 64, not '4'",
        ),
        (
            _changed("tile_clusters = 64", "tile_clusters = 8"),
            "hcu.tile_clusters must be a power of two from 16 to 65536, not 8",
        ),
        (_changed("cores = 1\n", "cores = 0\n"), "cores must be a whole number from 1 to 1024, not 0"),
        (_changed("cores = 1\n", "cores = 1.0\n"), "cores must be a whole number from 1 to 1024, not 1.0"),
        (_changed("cores = 1\n", "cores = true\n"), "cores must be a whole number from 1 to 1024, not True"),
        (
            _changed("bus_bits = 64", "bus_bits = 100"),
            "bus_bits must be a power of two from 64 to 512, not 100",
        ),
        (_changed('scheme = "fused"', 'scheme = "fast"'), "dpe.scheme must be fused or tree, not 'fast'"),
        (_changed('scheme = "fused"', "scheme = 1"), "dpe.scheme must be fused or tree, not 1"),
        (
            _changed('name = "tiny"', 'name = "a/b"'),
            "name must be 1 to 64 letters (A-Z, a-z), digits or any of _.+-",
        ),
        (_changed('name = "tiny"', 'name = ""'), "name must be 1 to 64 letters"),
        (_changed('name = "tiny"', "name = 1"), "name must be 1 to 64 letters"),
        (_changed('name = "tiny"', r'name = "a\n"'), "name must be 1 to 64 letters"),
        (_changed("[mean]\n", "[mean]\n[other]\n"), "other is no field; choose from name, "),
        (_changed("[mean]\n", "[mean]\nlane = 3\n"), "mean.lane is no field; choose from lanes"),
        (_changed("banks = 4", 'banks = 4\n"a\\nb" = 4'), "lxe.'a\\nb' is no field; choose from memory_kib"),
        (_changed("banks = 4", ""), "lxe.banks is missing; give a power of two from 1 to 32"),
        (_changed("banks = 4", "banks = 4\nbank = 4"), "lxe.bank is no field; choose from memory_kib, banks"),
        (
            _changed("cores = 1\n", "cores = 1\ncolour = 3\n"),
            "colour is no field; choose from name, cores, ports, bus_bits, hcu,",
        ),
        (_changed("cores = 1\n", "cores = 1\nmean = 3\n").replace("[mean]", "[other]"), "other is no field"),
        ("version = 1\nmean = 3\n", "name is missing; give 1 to 64 letters"),
        (_changed("version = 1", "version = 2"), "version must be 1, the format that this vrex reads, not 2"),
        (
            _changed("version = 1", "version = 1.0"),
            "version must be 1, the format that this vrex reads, not 1.0",
        ),
        (
            _changed("version = 1", "version = true"),
            "version must be 1, the format that this vrex reads, not True",
        ),
        (_changed("version = 1", ""), "version is missing; it must be 1"),
        ("", "version is missing; it must be 1"),
        (
            _changed("head_dim = 64", "head_dim = 16").replace("bus_bits = 64", "bus_bits = 512"),
            "kvmu.head_dim must fill a bus beat, so be at least bus_bits / 16, "
            "but kvmu.head_dim is 16 and bus_bits is 512",
        ),
    ],
)
def test_a_bad_value_is_named(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        config_file.read(path)
    sentence = str(raised.value)
    assert sentence.startswith(f"{path}: {says}")
    assert "\n" not in sentence


def test_a_section_that_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = config_file.to_toml(preset("tiny"))
    text = re.sub(r"(?s)\[mean\].*?rounding = \"nearest\"", "", text).replace(
        "cores = 1\n", "cores = 1\nmean = 3\n"
    )
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"mean must be a table of fields, \[mean\], not 3"):
        config_file.read(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version = ", "mine.toml is not TOML: Invalid value"),
        (b"{}", "mine.toml is not TOML: "),
        (b"x = " + b"[" * 100_000, "mine.toml is not TOML: "),
        (b"x = " + b"9" * 10_000, "mine.toml is not TOML: "),
        (b"# caf\xe9\n", "mine.toml is not UTF-8, as TOML must be: byte 5 is not"),
        (b"#" * (1 << 20) + b"#", "mine.toml is larger than 1048576 bytes"),
    ],
)
def test_what_is_no_toml(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        config_file.read(path)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [("none.toml", "No such file or directory"), ("", "Is a directory"), ("a\0b", "null byte")],
)
def test_what_is_no_file(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cannot be read .*{says}"):
        config_file.read(tmp_path / name)


def test_params_change_fields_together_and_the_name() -> None:
    edge = preset("edge")
    made = config_file.with_params(edge, [("hcu.lanes", "64"), ("hcu.tile_clusters", 256)], "preset edge")
    assert made.hcu == HcuConfig(lanes=64, tile_clusters=256)
    assert re.fullmatch("edge-[0-9a-f]{8}", made.name)
    assert dataclasses.replace(made, name="edge", hcu=edge.hcu) == edge
    assert config_file.with_params(edge, [("dpe.scheme", "tree")], "x").dpe.scheme == "tree"
    other = config_file.with_params(edge, [("hcu.lanes", 8)], "preset edge")
    assert other.name != made.name
    assert config_file.with_params(edge, [("hcu.lanes", 16)], "preset edge") == edge
    assert config_file.with_params(edge, [], "preset edge") == edge
    named = config_file.with_params(edge, [("name", "mine"), ("cores", "2")], "preset edge")
    assert (named.name, named.cores) == ("mine", 2)
    # A preset's name stays the preset's.
    assert config_file.with_params(edge, [("name", "tiny")], "preset edge").name.startswith("tiny-")


def test_long_names_stay_names() -> None:
    long = dataclasses.replace(preset("edge"), name="x" * 64)
    assert len(config_file.with_params(long, [("cores", 2)], "x").name) == 64


def test_a_file_that_says_it_is_a_preset_gets_another_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(_changed("cores = 1\n", "cores = 2\n"), encoding="utf-8")
    assert re.fullmatch("tiny-[0-9a-f]{8}", config_file.read(path).name)
    path.write_text(_changed('name = "tiny"', 'name = "mine"'), encoding="utf-8")
    assert config_file.read(path) == dataclasses.replace(preset("tiny"), name="mine")


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ([("hcu.lane", "8")], "preset edge has no field 'hcu.lane'; choose from hcu.lanes, hcu.hash_bits, "),
        (
            [("gpu.lanes", "8")],
            "preset edge has no field 'gpu.lanes'; choose from name, cores, ports, bus_bits, hcu.*",
        ),
        ([("hcu", "8")], "preset edge has no field 'hcu'; choose from hcu.lanes, "),
        ([("lanes", "8")], "preset edge has no field 'lanes'; choose from name, "),
        ([("version", "1")], "preset edge has no field 'version'; choose from name, "),
        ([("hcu.lanes.x", "8")], "preset edge has no field 'hcu.lanes.x'; choose from hcu.lanes, "),
        ([(".hcu.lanes", "8")], "preset edge has no field '.hcu.lanes'; choose from name, "),
        ([("name.x", "8")], "preset edge has no field 'name.x'; choose from name, "),
        (
            [("hcu.lanes", "7")],
            "preset edge with hcu.lanes=7: hcu.lanes must be a power of two from 1 to 64, not 7",
        ),
        ([("hcu.lanes", "8.0")], "hcu.lanes must be a power of two from 1 to 64, not '8.0'"),
        ([("hcu.lanes", "true")], "hcu.lanes must be a power of two from 1 to 64, not 'true'"),
        ([("hcu.lanes", "-8")], "hcu.lanes must be a power of two from 1 to 64, not -8"),
        ([("hcu.lanes", " 8")], "hcu.lanes must be a power of two from 1 to 64, not ' 8'"),
        ([("hcu.lanes", "٨")], "hcu.lanes must be a power of two from 1 to 64, not '٨'"),
        ([("hcu.lanes", "9" * 5000)], "hcu.lanes must be a power of two from 1 to 64, not '9999"),
        ([("dpe.scheme", "3")], "dpe.scheme must be fused or tree, not '3'"),
        ([("hcu.lanes", "8"), ("hcu.lanes", "16")], "hcu.lanes=16 sets hcu.lanes a second time; leave one"),
        (
            [("mean.lanes", "32")],
            "mean.lanes x 16 bits must fit into a bus beat, but mean.lanes is 32 and bus_bits is 256",
        ),
    ],
)
def test_params_that_cannot_be(params: list[tuple[str, int | str]], says: str) -> None:
    with pytest.raises(UserError) as raised:
        config_file.with_params(preset("edge"), params, "preset edge")
    assert says in str(raised.value)


def test_load_knows_presets_files_and_objects() -> None:
    assert config_file.load("tiny") == config_file.load(preset("tiny")) == preset("tiny")
    with pytest.raises(UserError, match="unknown preset 'huge': choose one of tiny, "):
        config_file.load("huge")
