"""The README as an index of packages shows it: with absolute links and pictures.

hatchling calls this hook; the repository's address is that of ``[project.urls]``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: A link or picture of Markdown whose target is a file here: no address, and no place in the same page.
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^][]*)\]\((?P<target>(?![a-z]+:|#)[^)\s]+)\)")


def absolute(text: str, repository: str) -> str:
    """Return Markdown with each link to a file of the repository made absolute; pictures need the raw file."""

    def link(match: re.Match[str]) -> str:
        kind = "raw" if match["picture"] else "blob"
        return f"{match['picture']}[{match['text']}]({repository}/{kind}/main/{match['target']})"

    return LINK.sub(link, text)


class ReadmeHook(MetadataHookInterface):
    """Sets the field `readme`, which pyproject.toml declares as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Read README.md as it is now."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = absolute(text, metadata["urls"]["Repository"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
