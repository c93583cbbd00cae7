"""Whether a page's elements are nested as they should be."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "img", "input", "link", "hr"}  # elements without an end


class _Nesting(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> at {self.getpos()} in {self.open}"
        self.open.pop()


def assert_well_formed(page: str) -> None:
    """Every element ends inside the one that it began in, and no template's mark is left."""
    parser = _Nesting()
    parser.feed(page)
    parser.close()
    assert parser.open == [] and page.startswith("<!doctype html>")
    assert "{%" not in page and "{{" not in page
