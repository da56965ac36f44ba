"""Templates: text stays as it is, HTML is escaped, and a forgotten variable is an error."""

import pytest
from jinja2 import UndefinedError

from apa_lightning.utils.templates import render


def test_text_is_not_escaped():
    assert "Listening test <'&>" in render("apa_lightning.listening_test", "README.txt.j2", build="<'&>", rule="")


def test_html_is_escaped_and_json_cannot_end_its_script():
    test = {"points": 5, "text": "</script>é"}
    page = render("apa_lightning.listening_test", "index.html.j2", test=test)
    assert '"text": "\\u003c/script\\u003eé"' in page
    about = {"": {"set": "<b>"}}
    page = render("apa_lightning.evaluation.report", "report.html.j2", title="<i>", about=about, sections=[])
    assert "&lt;b&gt;" in page and "&lt;i&gt;" in page and "<i>" not in page


def test_a_missing_variable_is_an_error():
    with pytest.raises(UndefinedError, match="rule"):
        render("apa_lightning.listening_test", "README.txt.j2", build="x")
