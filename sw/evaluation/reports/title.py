"""Words of the user's, such as a file's name, in a picture."""

from vrex.text import printable


def shown(words: str) -> str:
    """The words as the pictures' font can show them, on one line; what it lacks becomes an escape.

    Whoever draws it says `parse_math=False`, or a dollar in it would begin a formula.
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return "".join(
        character
        if character.isprintable() and font.get_char_index(ord(character))
        else character.encode("unicode_escape").decode()
        for character in printable(words)
    )
