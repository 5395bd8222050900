"""Sphinx builds the documentation from here: ``sphinx-build -W --keep-going docs docs/_build/html``.

No network is needed. The gallery runs the scripts of ``examples``, which takes minutes;
``-D plot_gallery=0`` leaves that out, and with it their pictures.
"""

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
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "examples/index.rst"]  # gallery.md stands for that one
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

default_role = "py:obj"  # as in NumPy's docstrings
autosummary_generate = True
# Names of files that differ by case only are one file on some systems.
autosummary_filename_map = {"parwise.Options": "parwise.Options-class", "parwise.Report": "parwise.Report-class"}
autodoc_typehints = "none"  # the types stand beside the parameters
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# Links to other projects. Their whole inventories would have to be downloaded; `inventories` has the names that these
# pages use, one a line, in version 1 of the format, which is plain text.
intersphinx_mapping = {
    name: (address, f"inventories/{name}.inv")
    for name, address in {
        "dask": "https://docs.dask.org/en/stable/",
        "distributed": "https://distributed.dask.org/en/stable/",
        "joblib": "https://joblib.readthedocs.io/en/stable/",
        "numpy": "https://numpy.org/doc/stable/",
        "python": "https://docs.python.org/3/",
        "scipy": "https://docs.scipy.org/doc/scipy/",
        "xarray": "https://docs.xarray.dev/en/stable/",
    }.items()
}
numpydoc_xref_param_type = True
numpydoc_xref_aliases = {
    "bool": ":obj:`bool`",
    "callable": "collections.abc.Callable",
    "iterable": "collections.abc.Iterable",
    "array_like": "numpy.asarray",
    "ndarray": "numpy.ndarray",
    "dtype": "numpy.dtype",
    "Generator": "numpy.random.Generator",
    "BitGenerator": "numpy.random.BitGenerator",
    "SeedSequence": "numpy.random.SeedSequence",
    "DataArray": "xarray.DataArray",
    "Dataset": "xarray.Dataset",
    "DataTree": "xarray.DataTree",
}
numpydoc_xref_ignore = "all"

# Only what one would type is copied: neither prompts nor output.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "examples",
    "filename_pattern": r"\.py$",  # all of them are run
    "abort_on_example_error": True,
    "backreferences_dir": "api/backreferences",
    "doc_module": ("parwise",),
    "reference_url": {"parwise": None},
    "capture_repr": (),
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,  # each page has its own
    "show_signature": False,
    "image_srcset": ["2x"],
    "thumbnail_size": (480, 320),
    "first_notebook_cell": '# pip install ".[examples]"  # in a copy of the repository: there is no release yet',
}

html_theme = "pydata_sphinx_theme"
html_title = f"parwise {version}"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["parwise.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "gallery": [], "examples/*": [], "coming-from/*": [], "changes": []}
html_theme_options = {
    "logo": {"image_light": "_static/logo.svg", "image_dark": "_static/logo.svg", "alt_text": "parwise"},
    "navbar_persistent": ["search-button"],
    "navbar_end": ["version.html", "theme-switcher"],
    "header_links_before_dropdown": 6,  # the last ones, for those who change parwise, are under "More"
    # The other pages use the width of a list of their sections for code side by side.
    "secondary_sidebar_items": {
        page: ["page-toc"]
        for page in (
            "benchmarks",
            "bits",
            "changes",
            "getting-started",
            "installation",
            "reference",
            "reliability",
            "security",
            "development/*",
            "guide/*",
            "help/*",
        )
    }
    | {"examples/*": ["sg_download_links"]},
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
