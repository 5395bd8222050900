"""Sphinx builds the documentation from here: ``sphinx-build -W --keep-going docs docs/_build/html``."""

import parwise

project = "parwise"
author = "The parwise developers"
copyright = author  # noqa: A001 - Sphinx's name
version = release = parwise.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_design",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

default_role = "py:obj"  # as in NumPy's docstrings
autosummary_generate = True
# Names of files that differ by case only are one file on some systems.
autosummary_filename_map = {"parwise.Options": "parwise.Options-class", "parwise.Report": "parwise.Report-class"}
autodoc_typehints = "none"  # the types stand beside the parameters
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = "parwise"
html_static_path = ["_static"]
html_css_files = ["parwise.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "gallery": [], "coming-from/*": []}
html_theme_options = {
    "logo": {"text": "parwise"},
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": {
        page: ["page-toc"] for page in ("guide/*", "development/*", "reference", "bits", "reliability")
    },
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
