"""Published settings by name: given, else the preset's, else the default."""

import numpy as np
import pytest

from metarl_envs.locomotion.presets import with_preset

DEFAULTS = {"horizon": 200, "weight": 0.05, "ends": True}
PRESETS = {"short": {"horizon": 100}, "odd": {"weight": 2.0, "ends": False}}
NOTHING = dict.fromkeys(DEFAULTS)


def test_without_a_preset_the_defaults_hold():
    assert with_preset(None, PRESETS, DEFAULTS, NOTHING) == DEFAULTS
    assert with_preset(None, PRESETS, DEFAULTS, {}) == DEFAULTS


def test_a_preset_overrides_defaults_and_nothing_else():
    assert with_preset("short", PRESETS, DEFAULTS, NOTHING) == DEFAULTS | {"horizon": 100}
    assert with_preset("odd", PRESETS, DEFAULTS, {}) == {**DEFAULTS, "weight": 2.0, "ends": False}


def test_explicit_arguments_override_a_preset_zero_and_false_included():
    given = {"weight": 0.0, "ends": True, "horizon": None}
    assert with_preset("odd", PRESETS, DEFAULTS, given) == {
        "horizon": 200,
        "weight": 0.0,
        "ends": True,
    }
    assert with_preset("short", PRESETS, DEFAULTS, {"ends": False})["ends"] is False


def test_neither_presets_nor_defaults_change():
    chosen = with_preset("short", PRESETS, DEFAULTS, {"weight": 1.0})
    chosen["horizon"] = 1
    assert PRESETS["short"] == {"horizon": 100}
    assert DEFAULTS == {"horizon": 200, "weight": 0.05, "ends": True}


@pytest.mark.parametrize("preset", ["SHORT", "", 0, True, ["short"], np.array(["short", "odd"])])
def test_other_names_are_refused_with_those_that_there_are(preset):
    with pytest.raises(ValueError, match=r"must be None or one of \['odd', 'short'\]"):
        with_preset(preset, PRESETS, DEFAULTS, {})
