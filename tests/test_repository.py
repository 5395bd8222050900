"""What stands in several files of the repository is the same in each; README's links hold on an index page too."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

import parwise

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
FILES = ["CITATION.cff", "recipe/recipe.yaml"]


def read_me():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.absolute((ROOT / "README.md").read_text(), REPOSITORY)


def test_links_of_the_readme_are_absolute_and_lead_to_files():
    targets = re.findall(r"\]\(([^)\s]+)|(?:src|href)=[\"']([^\"']+)", read_me())
    targets = [one or other for one, other in targets]
    assert targets
    for target in targets:
        assert re.match("https?://", target), target
        if target.startswith(REPOSITORY):
            file = re.sub("^/(blob|raw)/main/", "", target.removeprefix(REPOSITORY))
            assert (ROOT / file).exists(), target


@pytest.mark.parametrize("file", FILES)
def test_version_and_addresses(file):
    text = (ROOT / file).read_text()
    assert re.search(r"^\s*version: \"?([^\"\n$]+)", text, re.MULTILINE)[1] == parwise.__version__
    addresses = set(re.findall(r"https://\S*/parwise\b", text))
    assert addresses == {REPOSITORY, PROJECT["urls"]["Documentation"]}


def test_changelog_begins_with_this_version():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == parwise.__version__


def test_recipe_needs_what_the_package_needs():
    recipe = (ROOT / "recipe/recipe.yaml").read_text()
    run = re.search(r"^  run:\n((?: +- .*\n)+)", recipe, re.MULTILINE)[1]
    found = [line.strip(" -").replace(" ", "") for line in run.splitlines()]
    assert set(PROJECT["dependencies"]) < set(found)
    assert f'python_min: "{PROJECT["requires-python"].removeprefix(">=")}"' in recipe
