import json

from headsets.test_headset import document  # noqa: F401, a fixture

from workbench.headsets.headset import parse


def test_a_line_and_a_table_of_the_pools(document):  # noqa: F811
    found = parse(json.dumps(document))
    assert "coarse: 4-3 5-7; refine: 5-0" in repr(found) and str(found) == repr(found)
    assert len(repr(found)) < 300 and "mover" not in repr(found)
    page = found._repr_html_()
    assert "0.50 [0.25, 0.75]" in page and "0.01 [0.25, 0.75]" in page
    assert page.count("<tr>") == 3 and len(page) < 5_000
