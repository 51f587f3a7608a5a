"""Descriptors that bind functions in other ways than Python's own methods."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class ClassOrInstanceMethod(Generic[P, R]):
    """Binds a function to the instance it is reached through, or else to the class."""

    def __init__(self, function: Callable[Concatenate[Any, P], R]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: object | None, owner: type) -> Callable[P, R]:
        return MethodType(self.function, owner if instance is None else instance)
