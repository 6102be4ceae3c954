"""Named settings of publications, which explicit arguments override."""

from collections.abc import Mapping
from typing import Any

Presets = Mapping[str, Mapping[str, Any]]


def with_preset(
    preset: str | None, presets: Presets, defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings to use: those given, else the preset's, else the defaults.

    :param preset: its name, `None` for none
    :param presets: settings by name
    :param defaults: of all settings
    :param given: what the user gave; `None` stands for nothing
    """
    if preset is not None and not (isinstance(preset, str) and preset in presets):
        raise ValueError(f"preset={preset!r} must be None or one of {sorted(presets)}")
    chosen = {**defaults, **(presets[preset] if preset else {})}
    return {name: chosen[name] if given.get(name) is None else given[name] for name in defaults}
