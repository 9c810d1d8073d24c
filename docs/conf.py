"""The site's settings: sphinx-build -W --keep-going -n -b html docs DIRECTORY."""

import thanosql

project = "thanosql"
copyright = "the thanosql authors, Apache-2.0"
version = release = thanosql.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = "thanosql"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 3
# A fence without a language is an outline or what a shell was told.
highlight_language = "text"

# A name in single backquotes is as often a parameter or a word of SQL as an object.
default_role = "literal"
add_module_names = False
autodoc_typehints = "none"  # the signature's defaults and the docstring's words say it
autodoc_member_order = "bysource"
napoleon_google_docstring = False
nitpicky = True
