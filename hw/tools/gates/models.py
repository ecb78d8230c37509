"""Verilog of standard cells, from what their Liberty file says they compute.

No delays: a register's output changes with the clock, a gate's with its inputs.
"""

from vrex.hw.tools.gates.functions import Function, identifier, parse
from vrex.hw.tools.synth.liberty import StandardCell, State
from vrex.hw.tools.synth.liberty_syntax import LibertyError

LEVELS = {"L": "0", "H": "1"}
"""What a register keeps while it is cleared and preset at once (`clear_preset_var1`)."""


def cell_model(name: str, cell: StandardCell) -> str:
    """A module of the cell's name and pins that does what the cell does.

    Raises:
        LibertyError: the file does not say what it does, or says it in a way that is not known here.
    """
    try:
        return _model(name, cell)
    except LibertyError as error:
        raise LibertyError(f"cell {name} can't be simulated: {error}") from error


def _model(name: str, cell: StandardCell) -> str:
    if cell.sequential and cell.state is None:
        raise LibertyError("it keeps something and has no group ff or latch")
    ports = [f"input {identifier(pin)}" for pin in cell.loads]
    ports += [f"output {identifier(pin)}" for pin in cell.arcs]
    lines = [f"module {identifier(name)}({', '.join(ports)});"]
    if cell.state is not None:
        lines += _state(cell.state)
    known = {*cell.loads, *(cell.state.names if cell.state is not None else ())}
    for pin in cell.arcs:
        if pin not in cell.functions:
            raise LibertyError(f"its pin {pin} has no function")
        value = _known(cell.functions[pin], known).verilog()
        if pin in cell.three_state:
            value = f"{_known(cell.three_state[pin], known).verilog()} ? 1'bz : {value}"
        lines.append(f"  assign {identifier(pin)} = {value};")
    return "\n".join([*lines, "endmodule", ""])


def _known(text: str, names: set[str]) -> Function:
    """A function of nothing but the names.

    Raises:
        LibertyError: it has another.
    """
    function = parse(text)
    if strange := function.pins - names:
        raise LibertyError(f"{text!r} names {min(strange)}, which is none of its pins")
    return function


def _state(state: State) -> list[str]:
    """What a register or latch keeps, and its complement."""
    kept = identifier(state.names[0])
    lines = [f"  reg {kept};"]
    lines += [f"  wire {identifier(name)} = ~{kept};" for name in state.names[1:]]
    clear, preset = (parse(state.rules.get(rule, "0")) for rule in ("clear", "preset"))
    forced = [name for name, function in (("cleared", clear), ("set", preset)) if function.name != "0"]
    if len(forced) == 2:
        # One of them wins while both are there, and its end must start the other.
        level = state.rules.get("clear_preset_var1", "L")
        if level not in LEVELS:
            raise LibertyError(f"clear_preset_var1 {level} is not known here")
        loser = "cleared" if LEVELS[level] == "1" else "set"
        both = {"cleared": (clear, preset), "set": (preset, clear)}
        functions = {
            name: f"{own.verilog()} & ~{other.verilog()}" if name == loser else own.verilog()
            for name, (own, other) in both.items()
        }
    else:
        functions = {"cleared": clear.verilog(), "set": preset.verilog()}
    lines += [f"  wire {name} = {functions[name]};" for name in forced]
    values = {"cleared": "1'b0", "set": "1'b1"}
    if state.kind == "latch":
        choices = [f"if ({name}) {kept} = {values[name]};" for name in forced]
        if "enable" in state.rules:
            enable, data = (parse(state.rules[rule]).verilog() for rule in ("enable", "data_in"))
            choices.append(f"if ({enable}) {kept} = {data};")
        return [*lines, f"  always @* {' else '.join(choices)}"]
    clock = parse(state.rules["clocked_on"])
    edge, pin = ("negedge", clock.operands[0]) if clock.operator == "~" else ("posedge", clock)
    if pin.operator:
        raise LibertyError(f"its clock is {state.rules['clocked_on']!r}, which is not a pin's edge")
    edges = [f"{edge} {pin.verilog()}", *(f"posedge {name}" for name in forced)]
    choices = [f"if ({name}) {kept} <= {values[name]};" for name in forced]
    choices.append(f"{kept} <= {parse(state.rules['next_state']).verilog()};")
    return [*lines, f"  always @({' or '.join(edges)}) {' else '.join(choices)}"]
