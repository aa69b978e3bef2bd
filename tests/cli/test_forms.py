from typer.testing import CliRunner

from workbench.cli import app
from workbench.prompts.forms.form import open_form, read_form


def printed(*arguments):
    return CliRunner().invoke(app, ["forms", *arguments])


def test_a_form_is_printed_or_written_to_be_edited(tmp_path):
    own = tmp_path / "xmc.toml"
    assert printed("xmc", "--out", str(own)).output.endswith("xmc.toml\n")
    assert own.read_text() == printed("xmc").output
    assert read_form(own) == open_form("xmc", "xmc:here")
    assert "exists already" in printed("xmc", "--out", str(own)).output


def test_forms_are_listed():
    lines = printed().output.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["debian", "general", "mimic4", "xmc"]


def test_a_form_that_is_not_there():
    refused = printed("nosuch")
    assert refused.exit_code == 2 and "not one of debian, general, mimic4, xmc" in refused.output
