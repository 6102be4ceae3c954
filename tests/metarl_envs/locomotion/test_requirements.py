"""What the locomotion families say where MuJoCo is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WITHOUT = """
import sys
sys.modules["mujoco"] = None
import gymnasium as gym
import metarl_envs
gym.make("metarl/GridGoal-v0")
try:
    MAKE
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "make",
    [
        'gym.make("metarl/HalfCheetahVel-v0")',
        'gym.make_vec("metarl/AntDir-v0", 2, vectorization_mode="vector_entry_point")',
    ],
)
def test_without_mujoco_the_error_names_the_version_and_the_command(make):
    code = WITHOUT.replace("MAKE", make)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("metarl_envs.locomotion needs mujoco>=3.17, but mujoco is not")
    assert "pip install 'mujoco>=3.17,<5'" in done.stdout
