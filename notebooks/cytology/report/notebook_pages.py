"""Executed notebooks as HTML pages that load nothing from the network."""

import re
from pathlib import Path

from cytology.files import written_whole
from cytology.report.page_parts import POLICY

# JupyterLab's own page without what it would load from the network: RequireJS, MathJax, Mermaid
# and the widgets. Executed notebooks hold tables, text and PNG pictures, which need none of them.
# Code among the outputs (`show`) looks like code in a cell, as it does in JupyterLab.
OFFLINE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_css -%}
{{ super() }}
<style>.jp-RenderedMarkdown .highlight pre { font-family: var(--jp-code-font-family);
  font-size: var(--jp-code-font-size); line-height: var(--jp-code-line-height) }</style>
{%- endblock -%}
{%- block html_head_js -%}
<meta http-equiv="Content-Security-Policy" content="POLICY">
{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
"""


def to_html(notebook: Path) -> Path:
    """Write an executed notebook as an HTML page that loads nothing; it is in the same folder."""
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"offline.html.j2": OFFLINE.replace("POLICY", POLICY)})],
        template_file="offline.html.j2",
    )
    page, _ = exporter.from_filename(str(notebook))
    path = notebook.with_suffix(".html")
    with written_whole(path) as temporary:
        temporary.write_text(without_remote_images(page), encoding="utf-8")
    return path


def without_remote_images(page: str) -> str:
    """`page` with pictures that lie elsewhere (a Colab badge) replaced by their text."""

    def text(tag: re.Match) -> str:
        alternative = re.search(r"""\balt=(["'])(.*?)\1""", tag[0])
        return alternative[2] if alternative else ""

    return re.sub(r"""<img\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*>""", text, page)
