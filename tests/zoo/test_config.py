import dataclasses
import inspect
import re

import pytest
import yaml

from zoo.config import (
    HYPERPARAMS,
    CompareConfig,
    Settings,
    TrainConfig,
    check_arguments,
    load_settings,
    parse_key_values,
    parse_settings,
    preset_names,
    read_yaml,
)


class Agent:
    def __init__(self, policy: str, env: str, *, inner_lr: float = 0.1) -> None: ...


def test_configs_are_frozen() -> None:
    config = TrainConfig(algo="mtsrl", env="metarl/RecommendationSmall-v0")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
    assert CompareConfig().agents


def test_key_values_are_read_as_yaml_and_powers_of_ten_as_numbers() -> None:
    values = parse_key_values(
        ["lr=3e-4", "name=gls", "on=true", "n=[1, 2e3]"], option="hyperparams"
    )
    assert values == {"lr": 3e-4, "name": "gls", "on": True, "n": [1, 2000.0]}


@pytest.mark.parametrize("pair", ["sigma2", "=3", "two words=1", "a=[1"])
def test_a_malformed_key_value_is_refused_with_its_option(pair: str) -> None:
    with pytest.raises(ValueError, match="--hyperparams"):
        parse_key_values([pair], option="hyperparams")


def test_settings_need_a_source() -> None:
    with pytest.raises(ValueError, match=r"x\.yml.*source"):
        parse_settings({"inner_lr": 0.1}, where="x.yml, id")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([1], "mapping"),
        ({"source": "s", "n_timesteps": "many"}, "n_timesteps"),
        ({"source": "s", "n_timesteps": 0}, "positive"),
        ({"source": "s", "n_timesteps": 1.5}, "whole"),
        ({"source": "s", "n_timesteps": True}, "n_timesteps"),
        ({"source": "s", "policy": 3}, "policy"),
        ({"source": "s", "env_kwargs": [1]}, "env_kwargs"),
        ({"source": "s", "true_prior": "all"}, "true_prior"),
    ],
)
def test_a_malformed_entry_names_its_key(entry: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_settings(entry, where="x.yml")


def test_settings_separate_the_constructor_s_arguments_from_the_run_s() -> None:
    settings = parse_settings({"source": "s", "n_timesteps": 1e4, "inner_lr": 0.2}, where="x.yml")
    assert settings == Settings(source="s", n_timesteps=10_000, arguments={"inner_lr": 0.2})


def test_an_unknown_argument_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no argument iner_lr; it takes inner_lr"):
        check_arguments({"iner_lr": 0.1}, Agent, where="x.yml")
    check_arguments({"inner_lr": 0.1}, Agent, where="x.yml")


def test_yaml_cannot_build_objects(tmp_path) -> None:
    path = tmp_path / "x.yml"
    path.write_text("id: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ValueError, match="not valid YAML"):
        read_yaml(path)


def test_yaml_that_holds_a_list_is_refused(tmp_path) -> None:
    (tmp_path / "x.yml").write_text("- 1\n")
    with pytest.raises(ValueError, match="mapping"):
        read_yaml(tmp_path / "x.yml")


def test_an_env_without_an_entry_gets_the_constructor_s_defaults(tmp_path) -> None:
    assert load_settings("nothing", "metarl/X-v0", folder=tmp_path) == Settings()


@pytest.mark.parametrize("path", sorted(HYPERPARAMS.glob("*.yml")), ids=lambda path: path.stem)
def test_every_shipped_entry_fits_its_agent_s_constructor(path) -> None:
    from metarl_agents import ALGORITHMS
    from metarl_envs import FAMILIES
    from zoo.comparators import COMPARATORS

    assert path.stem in {**ALGORITHMS, **COMPARATORS}
    for env_id in yaml.safe_load(path.read_text()):
        settings = load_settings(path.stem, env_id)
        assert env_id in FAMILIES
        assert settings.n_timesteps or path.stem.endswith("_scratch")
        cls = ALGORITHMS.get(path.stem) or COMPARATORS[path.stem].agent
        arguments = {k: v for k, v in settings.arguments.items() if k != "n_envs"}
        check_arguments(arguments, cls, where=f"{path.name}, {env_id}")


@pytest.mark.parametrize("path", sorted(HYPERPARAMS.glob("*.yml")), ids=lambda path: path.stem)
def test_handed_in_truths_are_arguments_of_the_constructor(path) -> None:
    from metarl_agents import ALGORITHMS

    for env_id in yaml.safe_load(path.read_text()):
        truth = load_settings(path.stem, env_id).true_prior
        if truth:
            parameters = inspect.signature(ALGORITHMS[path.stem].__init__).parameters
            assert set(truth["arguments"]) <= set(parameters)


PRESETS = """
metarl/X-v0:
  source: ours
  inner_lr: 0.2
  presets:
    paper2020: {source: "a paper", inner_lr: 0.3}
    paper2021: {inner_lr: 0.4}
"""


def test_a_preset_stands_for_itself_and_the_entry_goes_without_it(tmp_path) -> None:
    (tmp_path / "algo.yml").write_text(PRESETS)
    own = load_settings("algo", "metarl/X-v0", folder=tmp_path)
    assert own.source == "ours" and own.arguments == {"inner_lr": 0.2}
    found = load_settings("algo", "metarl/X-v0", preset="paper2020", folder=tmp_path)
    assert found == Settings(source="a paper", arguments={"inner_lr": 0.3})
    assert preset_names("algo", "metarl/X-v0", folder=tmp_path) == ("paper2020", "paper2021")


def test_a_preset_needs_a_source_of_its_own(tmp_path) -> None:
    (tmp_path / "algo.yml").write_text(PRESETS)
    with pytest.raises(ValueError, match=r"paper2021.*source"):
        load_settings("algo", "metarl/X-v0", preset="paper2021", folder=tmp_path)


@pytest.mark.parametrize("env_id", ["metarl/X-v0", "metarl/Y-v0"])
def test_an_unknown_preset_is_refused_with_those_that_exist(tmp_path, env_id) -> None:
    (tmp_path / "algo.yml").write_text(PRESETS)
    known = "paper2020, paper2021" if env_id == "metarl/X-v0" else "none"
    with pytest.raises(ValueError, match=f"algo.yml has {known} for {env_id}"):
        load_settings("algo", env_id, preset="paper1999", folder=tmp_path)


@pytest.mark.parametrize("path", sorted(HYPERPARAMS.glob("*.yml")), ids=lambda path: path.stem)
def test_every_shipped_preset_fits_its_agent_s_constructor(path) -> None:
    from metarl_agents import ALGORITHMS

    for env_id in yaml.safe_load(path.read_text()):
        for preset in preset_names(path.stem, env_id):
            settings = load_settings(path.stem, env_id, preset=preset)
            assert settings.n_timesteps
            arguments = {k: v for k, v in settings.arguments.items() if k != "n_envs"}
            where = f"{path.name}, {env_id}, {preset}"
            check_arguments(arguments, ALGORITHMS[path.stem], where=where)


@pytest.mark.parametrize("algo", ["emaml", "maml", "promp", "sgmrl"])
def test_shipped_presets_last_as_many_iterations_as_their_sources_say(algo) -> None:
    import gymnasium as gym

    import metarl_envs  # noqa: F401

    for env_id in yaml.safe_load((HYPERPARAMS / f"{algo}.yml").read_text()):
        for preset in preset_names(algo, env_id):
            settings = load_settings(algo, env_id, preset=preset)
            given = settings.arguments
            horizon = gym.make(env_id, **settings.env_kwargs).unwrapped.horizon
            size = given["meta_batch_size"] * given["n_episodes_per_task"] * horizon
            stated = re.search(r"(\d+) iterations(?! of)", settings.source)
            if stated:
                n_phases = given.get("n_inner_steps", 1) + 1
                assert settings.n_timesteps == int(stated[1]) * n_phases * size, (env_id, preset)


def test_finn_s_point_has_the_reward_of_the_paper() -> None:
    settings = load_settings("maml", "metarl/PointGoal-v0", preset="finn2017")
    assert settings.env_kwargs == {"preset": "finn2017"}
