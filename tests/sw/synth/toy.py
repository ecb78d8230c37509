"""A library of four cells with delays simple enough to add up by hand."""

LIBERTY = """
/* Delays: inverter 1 + 2 * load, buffer 0.5 + 0.25 * slope, both with a slope of 0.2 + load.
   Flip-flop: 3 from the clock, setup 0.75. */
library (toy) {
  time_unit : "1ns";
  capacitive_load_unit (1, pf);
  lu_table_template (over_load) { variable_1 : total_output_net_capacitance; index_1 ("0, 1"); }
  lu_table_template (over_slope) { variable_1 : input_net_transition; index_1 ("0, 4"); }
  lu_table_template (both) {
    variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;
    index_1 ("0, 4"); index_2 ("0, 1");
  }
  cell (INV) {
    area : 2;
    pin (A) { direction : input; capacitance : 0.5; }
    pin (Y) {
      direction : output; function : "(!A)";
      timing () {
        related_pin : "A"; timing_sense : negative_unate;
        cell_rise (over_load) { values ("1, 3"); } rise_transition (over_load) { values ("0.2, 1.2"); }
        cell_fall (over_load) { values ("1, 3"); } fall_transition (over_load) { values ("0.2, 1.2"); }
      }
    }
  }
  cell (NAND) {
    area : 3;
    pin (A) { direction : input; capacitance : 0.5; }
    pin (B) { direction : input; capacitance : 0.5; }
    pin (Y) {
      direction : output; function : "(!(A B))";
      timing () {
        related_pin : "A B"; timing_sense : negative_unate;
        cell_rise (scalar) { values ("2"); } rise_transition (scalar) { values ("0.2"); }
        cell_fall (scalar) { values ("2"); } fall_transition (scalar) { values ("0.2"); }
      }
    }
  }
  cell (BUF) {
    area : 1;
    pin (A) { direction : input; capacitance : 0.25; }
    pin (Y) {
      direction : output; function : "A";
      timing () {
        related_pin : "A"; timing_sense : positive_unate;
        cell_rise (over_slope) { values ("0.5, 1.5"); }
        cell_fall (over_slope) { values ("0.5, 1.5"); }
        rise_transition (both) { values ("0.2, 1.2", \\
                                         "0.2, 1.2"); }
        fall_transition (both) { values ("0.2, 1.2", "0.2, 1.2"); }
      }
    }
  }
  cell (DFF) {
    area : 10;
    ff (IQ, IQN) { next_state : "D"; clocked_on : "CK"; }
    pin (CK) { direction : input; clock : true; capacitance : 0.1; }
    pin (D) {
      direction : input; capacitance : 0.5;
      timing () {
        related_pin : "CK"; timing_type : setup_rising;
        rise_constraint (scalar) { values ("0.75"); } fall_constraint (scalar) { values ("0.5"); }
      }
      timing () {
        related_pin : "CK"; timing_type : hold_rising;
        rise_constraint (scalar) { values ("9"); } fall_constraint (scalar) { values ("9"); }
      }
    }
    pin (Q) {
      direction : output; function : "IQ";
      timing () {
        related_pin : "CK"; timing_type : rising_edge;
        cell_rise (scalar) { values ("3"); } rise_transition (scalar) { values ("0.4"); }
        cell_fall (scalar) { values ("3"); } fall_transition (scalar) { values ("0.4"); }
      }
    }
  }
}
"""
