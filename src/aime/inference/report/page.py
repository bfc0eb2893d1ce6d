"""The pieces of a self-contained HTML page: nothing in it is loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own."""

    name: str
    """For links; one lower-case word."""
    title: str
    body: str


@dataclass(frozen=True)
class Cell:
    """A number of a table, whether it is good news, bad news or neither, and its interval."""

    text: str
    kind: str = ""
    interval: str = ""


def page(title: str, lead: str, head: str, sections: Sequence[Section]) -> str:
    """The whole document; `lead` and `head` are HTML, `title` is text."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{each.name}">{escape(each.title)}</a>' for each in sections)
    parts = "".join(f'<h2 id="{each.name}">{escape(each.title)}</h2>\n{each.body}\n' for each in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{style}</style>\n</head>\n'
        f'<body>\n<main>\n<h1>{escape(title)}</h1>\n<p class="lead">{lead}</p>\n<nav>{links}</nav>\n{head}\n{parts}'
        "</main>\n</body>\n</html>\n"
    )


def picture(content: bytes, alternative: str) -> str:
    """A WebP image inlined as base64."""
    encoded = base64.b64encode(content).decode("ascii")
    return f'<img src="data:image/webp;base64,{encoded}" alt="{escape(alternative)}">'


def figure(content: str, caption: str) -> str:
    """A picture or chart with the sentence that explains it; both are HTML."""
    return f'<figure><div class="scroll">{content}</div><figcaption>{caption}</figcaption></figure>'


def note(text: str) -> str:
    """A sentence in place of what cannot be shown; `text` is HTML."""
    return f'<p class="note">{text}</p>'


def side_by_side(*figures: str) -> str:
    """Figures in one row where the screen is wide enough."""
    return f'<div class="pair">{"".join(figures)}</div>'


def facts(values: Iterable[tuple[Cell, str]]) -> str:
    """Large numbers, each with its interval and a line below."""
    boxes = (
        f'<div class="fact"><b>{escape(value.text)}</b><i>{escape(value.interval)}</i><span>{escape(name)}</span></div>'
        for value, name in values
    )
    return f'<div class="facts">{"".join(boxes)}</div>'


def table(header: Sequence[str], rows: Sequence[tuple[str | Cell, Sequence[Cell]]]) -> str:
    """Numbers under a header; the first column names the row."""
    top = "".join(f"<th>{escape(each)}</th>" for each in header)
    named = ((Cell(name) if isinstance(name, str) else name, *cells) for name, cells in rows)
    body = "".join(f"<tr>{''.join(map(_cell, cells))}</tr>" for cells in named)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def definitions(values: Mapping[str, str]) -> str:
    """Names and what they mean."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in values.items())}</dl>"


def folded(summary: str, content: str) -> str:
    """Content that shows when its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def code(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>"


def _cell(cell: Cell) -> str:
    kind = f' class="{cell.kind}"' if cell.kind else ""
    interval = f'<span class="interval">{escape(cell.interval)}</span>' if cell.interval else ""
    return f"<td{kind}>{escape(cell.text)}{interval}</td>"
