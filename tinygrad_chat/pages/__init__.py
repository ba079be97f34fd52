"""The pages: HTML, CSS and JavaScript as files, and what fills them with text that cannot leave its place.

renderer.py     fills a template: Mustache's variables, sections and partials, and nothing else
palette.py      the colours, for pictures that stand alone
palette.css     where they are stated
report.html     the report of a run, with report.css
graph.html      a graph and the stepper through its sweep, with graph.css and graph.js
graph_svg.css   a graph's boxes and arrows
chart_svg.css   a chart's lines, with chart.js, which reads the values under the pointer
chat.html       the page of `tgc serve`, with chat.css and the modules of chat/: main.js puts them together

Reports and graphs are one file each that needs no network, and the policy (CSP) of each lets it run its own script and
no other. The page of `tgc serve` is several, which the server sends with a policy that allows them alone.
"""

from __future__ import annotations

from tinygrad_chat.pages.palette import palettes, svg_style
from tinygrad_chat.pages.renderer import Markup, escape, json_data, read_file, render

__all__ = ["Markup", "escape", "json_data", "palettes", "read_file", "render", "svg_style"]
