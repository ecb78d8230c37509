"""A library with a cell of every kind that is modelled; delays and energies are the toy library's."""

from tests.hw.tools.synth.toy import LIBERTY


def _cell(name: str, inputs: str, outputs: dict[str, str], state: str = "") -> str:
    pins = "".join(f"pin ({pin}) {{ direction : input; capacitance : 1; }}\n" for pin in inputs.split())
    pins += "".join(
        f'pin ({pin}) {{ direction : output; function : "{function}"; }}\n'
        for pin, function in outputs.items()
    )
    return f"cell ({name}) {{ area : 1; {state}\n{pins} }}\n"


FORCED = 'next_state : "D"; clocked_on : "C"; clear : "R"; preset : "!S";'
MORE = "".join(
    [
        _cell("AOI22", "A B C D", {"Y": "(!((A B)+(C D)))"}),
        _cell("OAI21", "A B C", {"Y": "((A+B) C)'"}),
        _cell("XNOR", "A B", {"Y": "!(A^B)"}),
        _cell("MUX", "A B S", {"Y": "(S A) + (!S B)"}),
        _cell("FULLADD", "A B C", {"CO": "(A B)+(B C)+(C A)", "S": "A^B^C"}),
        _cell("TIE", "A", {"HI": "1", "LO": "0", "Y": "A"}),
        _cell("DFFN", "C D", {"Q": "Q_", "N": "N_"}, 'ff (Q_, N_) { next_state : "D"; clocked_on : "!C"; }'),
        _cell(
            "DFFE",
            "C D E",
            {"Q": "K"},
            'ff (K, L) { next_state : "(E D) + (!E K)"; clocked_on : "C"; }',
        ),
        _cell("DFFR", "C D R", {"Q": "K"}, 'ff (K, L) { next_state : "D"; clocked_on : "C"; clear : "!R"; }'),
        _cell("DFFS", "C D S", {"Q": "K"}, 'ff (K, L) { next_state : "D"; clocked_on : "C"; preset : "S"; }'),
        _cell("DFFRS", "C D R S", {"Q": "K"}, f"ff (K, L) {{ {FORCED} clear_preset_var1 : L; }}"),
        _cell("DFFSR", "C D R S", {"Q": "K"}, f"ff (K, L) {{ {FORCED} clear_preset_var1 : H; }}"),
        _cell("LATCH", "G D", {"Q": "K", "N": "L"}, 'latch (K, L) { data_in : "D"; enable : "!G"; }'),
    ]
)
LIBRARY = LIBERTY.rstrip().removesuffix("}") + MORE + "}\n"
