"""The cards people choose an environment from, as the HTML of JupyterHub's spawn form."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, Template

from escape_hub.core.environment_choice import Preselection, offered
from escape_hub.core.environments import Catalogue

TEMPLATES = Path(__file__).parent / "templates"


@cache
def _template() -> Template:
    loader = FileSystemLoader(TEMPLATES)
    env = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return env.get_template("escape_environments.html")


def render(catalogue: Catalogue, groups: Collection[str], chosen: Preselection) -> str:
    """The fields only; the form around them and the button are JupyterHub's.

    Works without JavaScript: radio inputs whose labels are the cards.
    """
    return _template().render(
        environments=offered(catalogue, groups),
        selection=chosen.selection,
        gone=chosen.gone,
        needed=sorted(frozenset[str]().union(*(e.allowed_groups for e in catalogue.environments))),
    )
