"""The pages: HTML, CSS and JavaScript files, and a template renderer that escapes what is filled in.

renderer.py     fills a template: Mustache's variables, sections and partials, and nothing else
palette.py      the colours, for standalone pictures
palette.css     where the colours are defined
report.html     the report of a run, with report.css
graph.html      a graph and the stepper through its backward pass, with graph.css and graph.js
graph_svg.css   a graph's boxes and arrows
chart_svg.css   a chart's lines, with chart.js, which reads the values under the pointer
chat.html       the page of `tgc serve`, with chat.css and the modules of chat/: main.js puts them together

A report or a graph is one file that needs no network, and its content security policy (CSP) allows only its own script.
The page of `tgc serve` consists of several files; the server sends them with a policy that allows only these.
"""

from __future__ import annotations

from tinygrad_chat.pages.palette import palettes, svg_style
from tinygrad_chat.pages.renderer import Markup, escape, json_data, read_file, render

__all__ = ["Markup", "escape", "json_data", "palettes", "read_file", "render", "svg_style"]
