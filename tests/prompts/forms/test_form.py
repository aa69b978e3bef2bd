import pytest

from workbench.errors import InputError
from workbench.prompts.forms.form import PACKAGED, open_form, packaged_text, read_form

TURN = 'turn = "{document} or {options}"\n'


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_form_reads_and_can_be_copied(name, tmp_path):
    form = open_form(name, "xmc:here")
    own = tmp_path / f"{name}.toml"
    own.write_text(packaged_text(name))
    assert open_form(own, "xmc:here") == form
    assert form.reply and form.reason


def test_a_task_has_its_form(tmp_path):
    (tmp_path / "debian.json").write_text("{}")
    tasks = {"xmc:there": "xmc", f"xmc:{tmp_path},titles=yes": "debian", "mimic4:a": "mimic4"}
    for task, name in (tasks | {"icd10cm": "general"}).items():
        assert open_form(None, task).name == name


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("turn = ", "is not TOML"),
        ("", "turn is missing"),
        (TURN + "trun = 'x'", "unknown key trun"),
        (TURN + "name = 'x'", "unknown key name"),
        ("turn = '{document}'", "{document} and {options}, each once"),
        ("turn = '{document} {options} {options}'", "each once"),
        ("turn = '{options} {document}'", "{document} before {options}"),
        ("turn = '{document} {options} {answer}'", "other fields"),
        ("turn = '{document!r} {options}'", "other fields"),
        ("turn = '{document:5} {options}'", "other fields"),
        ("turn = '{document} {options} {'", "single brace"),
        ("turn = 5", "turn must be a text, is int"),
        (TURN + "option = '{name}'", "option must hold {name} and {text}"),
        (TURN + "reply = '{text}'", "reply has other fields than {kind}"),
        (TURN + "reply = 'The {{it}} {kin}'", "than {kind}, as 'kin';"),
        (TURN + "system = '{document}'", "system has other fields than none, as 'document';"),
        (TURN + "answer = 'Answer: {'", "answer has a single brace"),
        (TURN + "names = 'words'", "one of auto, letters, numbers"),
        (TURN + "answer = ' '", "answer is empty"),
    ],
)
def test_what_is_no_form_is_refused_in_a_line_that_names_the_file(text, why, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError) as refusal:
        read_form(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ") and why in message and "\n" not in message


def test_an_unknown_form_says_which_there_are():
    with pytest.raises(InputError, match="form nosuch: is no file, and not one of debian"):
        open_form("nosuch", "xmc:here")


def test_doubled_braces_are_meant(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        "turn = '{{a}} {document} {{b}} {options} {{c}} or {{d}}'\n"
        "option = '{{{name}}} {text}'\nsystem = '{{s}}'\nanswer = '{{\"answer\":'"
    )
    form = read_form(path)
    assert form.filled("turn", ("document", "options")) == [
        ("{a} ", "document"),
        (" {b} ", "options"),
        (" {c} or {d}", None),
    ]
    assert (form.written("system"), form.written("answer")) == ("{s}", '{"answer":')
    assert form.option_line("A", "{x}") == "{A} {x}"
