"""Sphinx configuration."""

from importlib.metadata import version as _version

project = "metarl-baselines"
author = "metarl-baselines contributors"
release = _version("metarl-baselines")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
autodoc_typehints = "description"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "metarl-baselines"
