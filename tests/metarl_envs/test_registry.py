import importlib
import json
import subprocess
import sys
import warnings

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec

import metarl_envs
from metarl_envs import FAMILIES

EXPECTED = {
    "metarl/Recommendation-v0",
    "metarl/RecommendationSmall-v0",
    "metarl/RecommendationGateway-v0",
    "metarl/RecommendationOsband-v0",
    "metarl/InverseBellman-v0",
    "metarl/FrozenLakeHoles-v0",
    "metarl/FrozenLakeReward-v0",
    "metarl/FrozenLakeSlip-v0",
    "metarl/FrozenLakeGoal-v0",
    "metarl/PointGoal-v0",
    "metarl/PointRobot-v0",
    "metarl/SparsePointGoal-v0",
    "metarl/PointCorner-v0",
    "metarl/PointWind-v0",
    "metarl/BernoulliBandit-v0",
    "metarl/GaussianBandit-v0",
    "metarl/RandomMDP-v0",
    "metarl/GridGoal-v0",
    "metarl/DarkRoom-v0",
    "metarl/DarkKeyToDoor-v0",
    "metarl/TMaze-v0",
}


def run_fresh(code):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return run.stdout.strip()


def test_every_row_is_registered_under_its_id():
    assert set(FAMILIES) >= EXPECTED
    for env_id, row in FAMILIES.items():
        assert row.id == env_id
        assert row.description and "\n" not in row.description
        spec = gym.spec(env_id)
        assert (spec.entry_point, spec.vector_entry_point) == (
            row.entry_point,
            row.vector_entry_point,
        )


def test_import_needs_no_heavy_package():
    code = (
        "import sys, metarl_envs\n"
        "heavy = 'torch stable_baselines3 sb3_contrib mujoco scipy matplotlib'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert run_fresh(code) == "[]"


def test_id_with_module_works_without_an_import():
    code = (
        "import gymnasium as gym\n"
        "env = gym.make('metarl_envs:metarl/Recommendation-v0')\n"
        "print(env.reset(seed=0)[0].tolist())"
    )
    assert run_fresh(code) == str([1] * 10)


def test_importing_again_neither_warns_nor_registers_twice():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(metarl_envs)


@pytest.mark.parametrize("env_id", FAMILIES)
def test_spec_is_json(env_id):
    for make in (gym.make, gym.make_vec):
        text = make(env_id).unwrapped.spec.to_json()
        assert json.loads(text)["id"] == env_id
        assert make(EnvSpec.from_json(text)).reset(seed=0)


def test_every_public_name_exists():
    for name in metarl_envs.__all__:
        assert getattr(metarl_envs, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        metarl_envs.no_such_name  # noqa: B018
