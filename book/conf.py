"""Settings of Sphinx for the book; `tools/book.py` puts the pages together and runs it."""

project = "mmdisaster"
author = "The mmdisaster authors"
extensions = ["myst_nb", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "mmdisaster"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_use_index = False
html_show_sourcelink = False
html_show_search_summary = False  # a page opened from disk may not read another
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#1f5f8b", "color-brand-content": "#1f5f8b"},
    "dark_css_variables": {"color-brand-primary": "#7fb8de", "color-brand-content": "#7fb8de"},
}
pygments_style = "friendly"
mathjax_path = "mathjax.js"  # a file of the book: it is read without a network

nb_execution_mode = "off"  # notebooks are shown as they are committed, or as the last run left them
nb_merge_streams = True
nb_render_markdown_format = "gfm"  # Markdown among outputs has tables
nb_output_stderr = "remove"
nb_code_prompt_show = "Imports"
nb_code_prompt_hide = "Imports"
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3


def collapse(app, name, template, context, doctree):
    """Open the part that a page is in, and no other: the sidebar of each page would else hold all pages."""
    whole = context["toctree"]
    context["toctree"] = lambda **options: whole(**options | {"collapse": True})


def setup(app):
    app.connect("html-page-context", collapse, priority=100)  # before furo's own
