"""Recipes: published data sets, as their owners or UltraBench distribute them, as data folders.

Nothing is downloaded: a recipe reads a folder that the user has.

    recipe                  what a recipe knows, and what it finds
    blues, gbcu, gbusv, butterfly, pocus    one data set each
    ultrabench              the layout that three of them share
    preparing               the one call, and all recipes by name
    folder                  what is written
    published               figures that papers report on them
"""

from usucl.data.recipes.folder import LICENCE
from usucl.data.recipes.preparing import RECIPES, Prepared, prepare
from usucl.data.recipes.published import Figure, PublishedTable, published_tables
from usucl.data.recipes.recipe import Clip, Contents, Recipe, UnlikeError

__all__ = [
    "LICENCE",
    "RECIPES",
    "Clip",
    "Contents",
    "Figure",
    "Prepared",
    "PublishedTable",
    "Recipe",
    "UnlikeError",
    "prepare",
    "published_tables",
]
