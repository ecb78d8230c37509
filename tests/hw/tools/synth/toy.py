"""A library of four cells with delays simple enough to add up by hand.

Inverter 1 + 2 * load, buffer 0.5 + 0.25 * slope, both with a slope of 0.2 + load; NAND 2 with a slope of 0.2;
flip-flop 3 from the clock with a slope of 0.4, setup 0.75 for a rising and 0.5 for a falling edge.
"""

FLAT = '"{0}, {0}", "{0}, {0}"'
RISING_SLOPE = '"0.2, 1.2", "0.2, 1.2"'


def _input(name: str, load: float, inside: str = "") -> str:
    return f"pin ({name}) {{ direction : input; capacitance : {load}; {inside} }}"


def _output(name: str, function: str, source: str, kind: str, delay: str, slope: str) -> str:
    tables = "\n".join(
        f"{table} (both) {{ values ({values}); }}"
        for table, values in (
            *(("cell_rise", delay), ("cell_fall", delay)),
            *(("rise_transition", slope), ("fall_transition", slope)),
        )
    )
    # One group a pin: the mapper does not know lists of pins.
    timing = "\n".join(f'timing () {{ related_pin : "{pin}"; {kind};\n{tables} }}' for pin in source.split())
    return f'pin ({name}) {{ direction : output; function : "{function}"; {timing} }}'


def _constraint(kind: str, rise: float, fall: float) -> str:
    tables = (
        f'rise_constraint (scalar) {{ values ("{rise}"); }} fall_constraint (scalar) {{ values ("{fall}"); }}'
    )
    return f'timing () {{ related_pin : "CK"; timing_type : {kind}; {tables} }}\n'


NEGATIVE = "timing_sense : negative_unate"
LIBERTY = f"""
/* Made for tests. */
library (toy) {{
  time_unit : "1ns";
  capacitive_load_unit (1, pf);
  lu_table_template (both) {{
    variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;
    index_1 ("0, 4"); index_2 ("0, \\
      1");
  }}
  cell (INV) {{
    area : 2;
    {_input("A", 0.5)}
    {_output("Y", "(!A)", "A", NEGATIVE, '"1, 3", "1, 3"', RISING_SLOPE)}
  }}
  cell (NAND) {{
    area : 3;
    {_input("A", 0.5)}
    {_input("B", 0.5)}
    {_output("Y", "(!(A B))", "A B", NEGATIVE, FLAT.format(2), FLAT.format(0.2))}
  }}
  cell (BUF) {{
    area : 1;
    {_input("A", 0.25)}
    {_output("Y", "A", "A", "timing_sense : positive_unate", '"0.5, 0.5", "1.5, 1.5"', RISING_SLOPE)}
  }}
  cell (DFF) {{
    area : 10;
    ff (IQ, IQN) {{ next_state : "D"; clocked_on : "CK"; }} // one edge
    {_input("CK", 0.1, "clock : true;")}
    {_input("D", 0.5, _constraint("setup_rising", 0.75, 0.5) + _constraint("hold_rising", 9, 9))}
    {_output("Q", "IQ", "CK", "timing_type : rising_edge", FLAT.format(3), FLAT.format(0.4))}
  }}
}}
"""
