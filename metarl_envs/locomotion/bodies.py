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
    camera=(
        ("azimuth", 105.0),
        ("distance", 5.0),
        ("elevation", -35.0),
        ("lookat", (0.0, 0.0, 0.3)),
    ),
)
WALKER2D = Body(
    "walker2d_v5.xml",
    frame_skip=4,
    reset_noise=5e-3,
    n_hidden=1,
    velocity_limit=10.0,
    camera=(("distance", 4.2), ("elevation", -15.0), ("lookat", (0.0, 0.0, 0.85))),
)
HOPPER = Body(
    "hopper.xml",
    frame_skip=4,
    reset_noise=5e-3,
    n_hidden=1,
    velocity_limit=10.0,
    camera=(("distance", 3.6), ("elevation", -15.0), ("lookat", (0.0, 0.0, 0.75))),
)
SWIMMER = Body(
    "swimmer.xml",
    frame_skip=4,
    reset_noise=0.1,
    n_hidden=2,
    camera=(("distance", 5.0), ("elevation", -40.0)),
)
HUMANOID = Body(
    "humanoid.xml",
    frame_skip=5,
    reset_noise=1e-2,
    n_hidden=2,
    camera=(
        ("azimuth", 105.0),
        ("distance", 4.5),
        ("elevation", -28.0),
        ("lookat", (0.0, 0.0, 0.8)),
    ),
)
