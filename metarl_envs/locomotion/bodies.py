"""Gymnasium's v5 bodies: numbers of its own environments (version 1.4), which tests compare."""

from metarl_envs.locomotion.family import Body

HALF_CHEETAH = Body(
    "half_cheetah.xml",
    frame_skip=5,
    reset_noise=0.1,
    n_hidden=1,
    is_velocity_noise_normal=True,
    camera=(("distance", 3.6), ("elevation", -18.0), ("lookat", (0.0, 0.0, 0.35))),
)
ANT = Body(
    "ant.xml",
    frame_skip=5,
    reset_noise=0.1,
    n_hidden=2,
    is_velocity_noise_normal=True,
    tracked="torso",
    camera=(("distance", 5.0), ("elevation", -35.0), ("lookat", (0.0, 0.0, 0.3))),
)
