"""The templates of HTML pages: whatever is filled in is escaped."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def _options(text: str) -> Markup:
    """A text in which no line is broken within an option of a command, such as --threshold."""
    parts = re.split(r"(--[a-z][\w-]*)", text)
    nowrap = Markup('<span class="option">{}</span>')
    return Markup().join(nowrap.format(p) if p.startswith("--") else escape(p) for p in parts)


_TEMPLATES.filters["options"] = _options


def template(name: str) -> jinja2.Template:
    """A template of this folder; its style is that of style.css."""
    return _TEMPLATES.get_template(name)
