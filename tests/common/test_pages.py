"""Pages against the standard library's own reader of HTML."""

from __future__ import annotations

import base64
import io
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hafm_jax.common import pages
from hafm_jax.common.errors import InputError

TEMPLATE = "common/page.html.j2"


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
