"""Recipes: how each network is trained when nobody says otherwise, each a TOML file in this folder.

A file holds keys of :class:`gpucnn.training.Config`; what it leaves out has the config's default.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from gpucnn import models
from gpucnn.training.config import Config

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The recipes that come with gpucnn."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def read(recipe: str | Path) -> Config:
    """The recipe of that name, or of a TOML file of one's own.

    Raises:
        ValueError, TypeError: no TOML, an unknown key, a wrong type or a value out of range; the message names file and
            key.
        OSError: no such recipe or file.
    """
    path = FOLDER / f"{recipe}.toml" if str(recipe) in names() else Path(recipe)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no recipe {str(recipe)!r}; known are {', '.join(names())}, or give a file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a recipe in TOML: {error}") from None
    config = Config.from_dict({"recipe": path.stem, **values}, str(path))
    try:
        return config.with_keys({"model": models.canonical_name(config.model)})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def for_model(model: str) -> Config:
    """The recipe that trains ``model``; the config's defaults where there is none. Raises ValueError for an unknown
    model."""
    name = models.canonical_name(model)
    for recipe in names():
        config = read(recipe)
        if config.model == name:
            return config
    return Config(model=name)


def config_for(model: str | None = None, recipe: str | Path | None = None, **changes: Any) -> Config:
    """The recipe of ``model`` (the lecture network's without one), with ``changes``; those that are None leave it as it
    is. With a ``recipe`` it is that one, for ``model`` where that is given too.

    ``changes`` are keys of the config, ``lr``, ``momentum``, ``nesterov`` and ``weight_decay`` of a single optimizer,
    and dotted keys such as ``**{"optimizer.head.lr": 0.5}``.

    Raises:
        ValueError, TypeError: an unknown model or key, or a value out of range.
        OSError: no such recipe.
    """
    config = read(recipe) if recipe is not None else for_model(model or "lecture")
    if model is not None:
        config = config.with_keys({"model": models.canonical_name(model)})
    return config.with_keys({key: value for key, value in changes.items() if value is not None})
