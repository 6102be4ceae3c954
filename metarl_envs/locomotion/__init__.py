"""MuJoCo bodies whose tasks differ in reward or in physics, stepped in batches."""

from importlib.util import find_spec

# `physics.py` looks at the version; this is for those who have none.
if find_spec("mujoco") is None:
    raise ImportError(
        "metarl_envs.locomotion needs mujoco>=3.17, but mujoco is not installed: "
        "pip install 'mujoco>=3.17,<5'"
    )
