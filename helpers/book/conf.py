"""Sphinx's settings for the book: nothing is executed, and nothing is fetched when it is read."""

project = html_title = "Server deployment and containerization"
language = "en"
extensions = ["myst_nb"]
root_doc = "index"
exclude_patterns = ["data/[!t]*", "data/templates"]  # of data, only the notes are pages
# Cells mix Python and shell; checks.py tells of links that lead nowhere.
suppress_warnings = ["misc.highlighting_failure", "myst.xref_missing"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # outputs have tables and links to pages, too
myst_enable_extensions = []  # a dollar is a dollar
myst_heading_anchors = 4
myst_heading_slug_func = "helpers.book.site.slug"

html_theme = "sphinx_book_theme"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_copy_source = html_show_sphinx = html_show_copyright = html_use_index = False
html_context = {"default_mode": "auto"}
html_sidebars = {"**": ["sbt-sidebar-nav.html"]}
html_theme_options = {
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "use_download_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
