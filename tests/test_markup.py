from workbench.markup import Bar, Piece, table, text


def test_what_is_handed_in_is_escaped():
    page = text([Piece("<b>", "#ff0000", 0.5, title='"x"')]) + table([{"<i>": Piece("<u>")}])
    assert not any(tag in page for tag in ("<b>", "<i>", "<u>"))
    assert "background:#ff000080" in page and "&quot;x&quot;" in page


def test_bars_are_as_long_as_their_share():
    page = table(
        [{"p": Bar(0.5, "#ff0000")}, {"p": Bar(7.0, "#ff0000")}, {"p": Bar(-1.0, "#ff0000")}]
    )
    assert [f"width:{pixels}px" in page for pixels in (60, 120, 0)] == [True] * 3
    assert "0.500" in page and table([]) == ""
