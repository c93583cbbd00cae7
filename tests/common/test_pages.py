"""Pages against the standard library's own reader of HTML."""

from __future__ import annotations

import base64
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hafm_jax.common import pages
from hafm_jax.common.errors import InputError
from hafm_jax.scaling import estimates

TEMPLATE = "common/page.html.j2"
PACKAGE = Path(pages.__file__).parents[1]
TEMPLATES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.j2"))


class Reader(HTMLParser):
    """(tag, attributes) and text of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def content(url: str, kind: str) -> bytes:
    head, data = url.split(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(data)


def test_text_is_escaped_and_the_page_is_whole(tmp_path):
    pages.write_page(tmp_path / "page.html", TEMPLATE, title="5 < 6 & <script>alert()</script>")
    html = (tmp_path / "page.html").read_text()
    read = Reader(html)
    assert html.startswith("<!doctype html>") and html.rstrip().endswith("</html>")
    assert read.text.count("5 < 6 & <script>alert()</script>") == 2  # title and heading
    assert "script" not in {tag for tag, _ in read.tags}


class Anything(str):
    """A value in every place of a template: text, a number, a row, a function, each of which is shown as the text."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)  # as __html__, which would say that it is HTML
        return Anything(self)

    def __getitem__(self, key):
        return Anything(self)

    def __call__(self, *arguments):
        return Anything(self)

    def __iter__(self):
        return iter([Anything(self), Anything(self)])

    def __contains__(self, key):
        return key != "missing"

    def __format__(self, form):
        return str(self)

    def __float__(self):
        return 1.0

    def items(self):
        return iter([(Anything(self), Anything(self))] * 2)

    def _number(self, other):
        return 1.0

    def _compared(self, other):
        return True

    __add__ = __radd__ = __mul__ = __rmul__ = __truediv__ = __sub__ = _number
    __lt__ = __le__ = __gt__ = __ge__ = _compared


def context_of(template: str, text: str) -> dict:
    """A value with the text for every name that the template asks for."""
    import jinja2
    from jinja2 import meta

    environment = jinja2.Environment(loader=jinja2.PackageLoader("hafm_jax", ""))
    names = {"title"} | meta.find_undeclared_variables(environment.parse((PACKAGE / template).read_text()))
    return {name: estimates if name == "words" else Anything(text) for name in names}


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_value_in_any_page_becomes_an_element_or_an_attribute(template, tmp_path):
    """The page of hostile values has the elements and attributes of the page of plain ones, and nothing else."""

    def tags(text: str) -> list:
        pages.write_page(tmp_path / "page.html", template, **context_of(template, text))
        html = (tmp_path / "page.html").read_text()
        assert text.isalpha() or text not in html
        return [(tag, list(attributes)) for tag, attributes in Reader(html).tags]

    plain = tags("plain")
    for hostile in (
        "<script>alert()</script>",
        "<img src=x onerror=alert()>",
        '"><b onclick=alert()>',
        "' onload='alert()",
        "</script><script>alert()</script>",
        "</td></table><!-- ",
    ):
        assert tags(hostile) == plain


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_template_turns_escaping_off(template):
    """And values stand in quotes where they are attributes, and as JSON where they are script."""
    import jinja2
    from jinja2 import nodes

    text = (PACKAGE / template).read_text()
    tree = jinja2.Environment().parse(text)
    assert not [node for node in tree.find_all(nodes.Filter) if node.name in ("safe", "forceescape")]
    assert not list(tree.find_all((nodes.EvalContextModifier, nodes.MarkSafe, nodes.MarkSafeIfAutoescape)))
    assert not re.search(r"=\s*\{\{", re.sub(r"\{%.*?%\}|<script>.*?</script>", "", text, flags=re.DOTALL))
    for script in re.findall(r"<script>.*?</script>", text, re.DOTALL):
        assert all(value.endswith("| tojson") for value in re.findall(r"\{\{ (.*?) \}\}", script))


def test_half_a_character_is_written_as_its_number(tmp_path):
    """UTF-8 has no place for it, and a file name that is not UTF-8 holds some."""
    pages.write_page(tmp_path / "page.html", TEMPLATE, title="a\udcffb")
    assert "a\\udcffb" in (tmp_path / "page.html").read_text()


def test_a_value_that_a_template_lacks_is_an_error(tmp_path):
    import jinja2

    with pytest.raises(jinja2.UndefinedError, match="title"):
        pages.write_page(tmp_path / "page.html", TEMPLATE)
    assert not list(tmp_path.iterdir())


def test_html_is_not_escaped_again():
    import jinja2

    template = jinja2.Environment(autoescape=True).from_string("{{ html }}|{{ text }}")
    assert template.render(html=pages.Html("<b>1</b>"), text="<b>1</b>") == "<b>1</b>|&lt;b&gt;1&lt;/b&gt;"


def test_plots_are_equal_for_equal_data_and_hold_no_date():
    def draw() -> str:
        figure, (left, right) = pages.new_figure(2)
        left.plot([0, 1], [0, 1])
        right.plot([0, 1], [1, 0])
        return pages.svg(figure), pages.picture(figure)

    (first_svg, first_png), (second_svg, second_png) = draw(), draw()
    assert first_svg == second_svg and first_png == second_png
    assert first_svg.startswith("<svg") and first_svg.rstrip().endswith("</svg>") and "<dc:date>" not in first_svg
    ((tag, attributes),) = Reader(first_png).tags
    assert tag == "img" and content(attributes["src"], "image/png").startswith(b"\x89PNG")


@pytest.mark.parametrize("channels", [1, 2])
def test_a_player_plays_the_sound(channels):
    time_s = np.arange(24_000) / 24_000
    sound = np.stack([0.5 * np.sin(2 * np.pi * f * time_s) for f in (440, 660)[:channels]]).astype(np.float32)
    ((tag, attributes),) = Reader(pages.player(sound if channels > 1 else sound[0], 24_000)).tags
    assert tag == "audio"
    played, rate_hz = soundfile.read(io.BytesIO(content(attributes["src"], "audio/mpeg")), always_2d=True)
    assert rate_hz == 24_000 and played.shape[1] == channels
    for found, frequency_hz in zip(played.T, (440, 660), strict=False):
        spectrum = np.abs(np.fft.rfft(found))
        assert spectrum.argmax() * rate_hz / len(found) == pytest.approx(frequency_hz, abs=2)


def test_missing_libraries_are_named(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match="pip install jinja2"):
        pages.write_page(tmp_path / "page.html", TEMPLATE, title="")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        pages.new_figure()
