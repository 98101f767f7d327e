"""How Sphinx builds this folder: `make docs`. Pages are Markdown that reads well on its own, too."""

import gotrace

project = "gotrace"
author = "the gotrace authors"
version = release = gotrace.__version__
extensions = ["myst_parser"]
html_theme = "furo"
html_show_copyright = False
html_title = f"gotrace {version}"
# Warnings are errors, so that a link to a page or a heading that is not there fails the build.
myst_heading_anchors = 4
