"""What each number of the training recipe may be: its type, its bounds, and the words that it can be."""

from __future__ import annotations

import math

from unet_dask.errors import OptionError

#: Fields that may be None, with the type of their other values.
_OPTIONAL: dict[str, type] = {
    "ignore": int,
    "foreground_value": int,
    "threads": int,
    "unit": str,
    "key": str,
    "target_key": str,
    "axes": str,
}
#: Fields that are lists, with the type of their elements.
_ELEMENTS: dict[str, type] = {
    "class_names": str,
    "tile": int,
    "factors": tuple,
    "hold_out": str,
    "partial": str,
    "spacing": float,
}
#: (lowest, highest) of the numbers that have bounds; both are allowed.
_BOUNDS: dict[str, tuple[float, float]] = {
    "iterations": (1, 1 << 31),
    "learning_rate": (1e-12, 100.0),
    "momentum": (0.0, 0.9999),
    "freeze_norm_after": (0.0, 1.0),
    "averaging": (0.0, 0.999999),
    "clip_norm": (0.0, math.inf),
    "poly_power": (0.0, 10.0),
    "validation": (0.0, 1e6),
    "validate_every": (1, 1 << 31),
    "checkpoint_every": (1, 1 << 31),
    "w0": (0.0, 1e6),
    "sigma": (0.1, 100.0),
    "balance": (0.0, 1.0),
    "border": (0, 50),
    "core": (0, 50),
    "blur": (0.0, 20.0),
    "emptied": (0.0, 1.0),
    "object_gain": (0.0, 2.0),
    "dice": (0.0, 100.0),
    "trusted_ring": (0, 10_000),
    "elastic_sigma": (0.0, 1000.0),
    "elastic_grid": (2, 64),
    "rotation": (0.0, 180.0),
    "scaling": (0.0, 1.0),
    "gain": (0.0, 2.0),
    "offset": (0.0, 10.0),
    "gamma": (0.0, 2.0),
    "noise": (0.0, 10.0),
    "seed": (0, (1 << 63) - 1),
    "threads": (1, 4096),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "target_kind": ("auto", "classes", "instances"),
    "normalisation": ("constant", "volume"),
    "precision": ("float32", "bfloat16", "float16"),
    "optimiser": ("sgd", "adam"),
    "drawn_by": ("pixels", "images"),
    "objects": ("auto", "components", "cells", "neurites"),
}


def _is(value: object, kind: type) -> bool:
    """Return whether a value is of a type; a whole number is a number, but true is none."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def check(name: str, value: object, default: object) -> None:
    """Check type and bounds of one field; the type is that of its default.

    Raises
    ------
    OptionError
        Naming the field, and what it may be.
    """
    if name in _OPTIONAL:
        if value is None:
            return
        expected = _OPTIONAL[name]
    else:
        expected = type(default)
    if not _is(value, expected):
        raise OptionError(f"The training's {name} must be of type {expected.__name__}, not {value!r}.")
    if isinstance(value, tuple) and not all(_is(each, _ELEMENTS[name]) for each in value):
        raise OptionError(
            f"The training's {name} must be a list of type {_ELEMENTS[name].__name__}, not {list(value)!r}."
        )
    if name in _CHOICES and value not in _CHOICES[name]:
        raise OptionError(f"The training's {name} must be {' or '.join(_CHOICES[name])}, not {value!r}.")
    if name in _BOUNDS and isinstance(value, int | float):
        low, high = _BOUNDS[name]
        if not low <= value <= high:
            raise OptionError(f"The training's {name} must be from {low} to {high}, not {value!r}.")
