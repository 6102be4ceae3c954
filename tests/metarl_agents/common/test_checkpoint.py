import ast
import json
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.utils import LinearSchedule

import metarl_agents
from metarl_agents.common.checkpoint import (
    load_checkpoint,
    named_callable,
    restored_generator,
    save_checkpoint,
)
from metarl_agents.common.checkpoint.archive import MANIFEST, TENSORS, write_archive
from metarl_agents.common.checkpoint.codec import decode, decode_space, encode, encode_space
from metarl_agents.common.testing.files import damaged_files


def save(path, **changes):
    contents = {
        "class_name": "Agent",
        "arguments": {"lr": 0.1, "sizes": (1, 2), "prior": np.arange(3.0)},
        "spaces": {"action_space": spaces.Discrete(3)},
        "tensors": {"w": th.arange(6.0).reshape(2, 3), "n": th.tensor(7)},
        "generators": {"rng": np.random.default_rng(5).bit_generator.state},
        "counters": {"num_timesteps": 12},
        "unsaved": ["features"],
        "records": {"note": [1.5, None]},
    }
    save_checkpoint(path, **{**contents, **changes})
    return path


def test_everything_comes_back(tmp_path):
    loaded = load_checkpoint(save(tmp_path / "a.zip"), "Agent")
    assert loaded.class_name == "Agent"
    assert loaded.arguments["sizes"] == (1, 2)
    assert np.array_equal(loaded.arguments["prior"], np.arange(3.0))
    assert loaded.spaces == {"action_space": spaces.Discrete(3)}
    assert th.equal(loaded.tensors["w"], th.arange(6.0).reshape(2, 3))
    assert loaded.tensors["n"].dtype == th.int64
    assert loaded.counters == {"num_timesteps": 12}
    assert loaded.unsaved == ["features"]
    assert loaded.records == {"note": [1.5, None]}
    ours, theirs = np.random.default_rng(5), restored_generator(loaded.generators["rng"])
    assert ours.random(4).tolist() == theirs.random(4).tolist()


def test_suffix_is_added_as_sb3_does(tmp_path):
    save(tmp_path / "a")
    assert (tmp_path / "a.zip").is_file()
    save(str(tmp_path / "b.agent"))
    assert (tmp_path / "b.agent").is_file()
    save(tmp_path / "new folder" / "c")
    assert load_checkpoint(tmp_path / "new folder" / "c").class_name == "Agent"
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_checkpoint(tmp_path / "missing")


def test_file_is_a_plain_zip_of_json_and_tensors(tmp_path):
    with zipfile.ZipFile(save(tmp_path / "a.zip")) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {MANIFEST, TENSORS, "data"}
        manifest = json.loads(archive.read(MANIFEST))
    assert manifest["class"] == "Agent"
    assert set(manifest["sha256"]) == {TENSORS, "data"}
    assert manifest["versions"]["torch"]


def test_same_agent_same_bytes(tmp_path):
    first, second = save(tmp_path / "a.zip"), save(tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()


def test_tensors_that_share_memory_are_stored_apart(tmp_path):
    base = th.arange(6.0)
    tensors = {"a": base[:3], "b": base[::2], "c": base.expand(2, 6)}
    loaded = load_checkpoint(save(tmp_path / "a.zip", tensors=tensors)).tensors
    assert all(th.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_every_altered_byte_is_noticed(tmp_path):
    path = save(tmp_path / "a.zip")
    good = path.read_bytes()
    for position in range(0, len(good), 7):
        altered = bytearray(good)
        altered[position] ^= 1
        path.write_bytes(altered)
        with pytest.raises(ValueError, match=" "):
            load_checkpoint(path, "Agent")
    path.write_bytes(good)
    load_checkpoint(path, "Agent")


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path, damaged = save(tmp_path / "a.zip"), tmp_path / "damaged.zip"
    for what, content in damaged_files(path):
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match=" ") as caught:
            load_checkpoint(damaged, "Agent")
        assert str(damaged) in str(caught.value), what


def rewritten(path, **changes):
    """A file with a valid digest whose manifest says something else."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = {**json.loads(members[MANIFEST]), **changes}
    members[MANIFEST] = json.dumps(manifest).encode()
    write_archive(path, members)
    return path


def pcg64(**changes):
    state = np.random.default_rng(0).bit_generator.state
    return {**state, "state": {**state["state"], **changes}}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "other"}, "format"),
        ({"format_version": 2}, "format version is 2"),
        ({"sha256": {}}, "cannot be loaded"),
        ({"sha256": {TENSORS: "0" * 64, "data": "0" * 64}}, "does not match the manifest"),
        ({"counters": {"n": -1}}, "non-negative"),
        ({"counters": {"n": 1.5}}, "non-negative"),
        ({"counters": []}, "cannot be loaded"),
        ({"generators": {"rng": {"bit_generator": "MT19937"}}}, "random generator"),
        ({"arguments": {"f": {"callable": "os.system"}}}, "no known function"),
        ({"arguments": {"f": {"pickle": "abc"}}}, "no kind of value"),
        ({"arguments": {"f": {"a": 1, "b": 2}}}, "one key"),
        ({"spaces": {"s": {"Evil": 1}}}, "no kind of space"),
        ({"arguments": {"a": {"array": {"dtype": "O", "shape": [1], "values": [1]}}}}, "dtype"),
        ({"class": "Other"}, "saved by Other: load it with Other.load, not Agent.load"),
        ({"class": ["Agent"]}, "no name of a class"),
        ({"format_version": True}, "format version is True"),
        ({"format_version": 1.0}, "format version is 1.0"),
        ({"unsaved": "features"}, "no list of names"),
        ({"unsaved": [1, "a"]}, "no list of names"),
        ({"counters": {"n": True}}, "non-negative"),
        ({"arguments": []}, "its arguments are no object"),
        ({"records": None}, "its records are no object"),
        ({"versions": [1]}, "its versions are no object"),
        ({"generators": {"rng": pcg64(state=-1)}}, "random generator"),
        ({"generators": {"rng": pcg64(state=1.5)}}, "random generator"),
        ({"generators": {"rng": pcg64(inc=2)}}, "random generator"),
        ({"generators": {"rng": pcg64(state=2**128)}}, "random generator"),
        ({"generators": {"rng": None}}, "random generator"),
        ({"spaces": {"s": {"Box": [{"dtype": "f8", "shape": [-1], "values": []}] * 2}}}, "shape"),
    ],
)
def test_manifests_that_make_no_sense_are_refused(tmp_path, changes, match):
    path = rewritten(save(tmp_path / "a.zip"), **changes)
    with pytest.raises(ValueError, match=match):
        load_checkpoint(path, "Agent")


def test_numbers_that_no_float_can_hold_are_refused(tmp_path):
    path = save(tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for number in (b"1e999", b"-1e999", b"9" * 5000):
        manifest = members[MANIFEST].replace(b'"lr": 0.1', b'"lr": ' + number)
        write_archive(path, {**members, MANIFEST: manifest})
        with pytest.raises(ValueError, match="cannot be loaded"):
            load_checkpoint(path)


def test_records_may_be_infinite(tmp_path):
    records = {"returns": [float("inf"), float("-inf"), 1.5]}
    assert load_checkpoint(save(tmp_path / "a.zip", records=records)).records == records


def test_saving_over_a_file_keeps_its_mode(tmp_path):
    path = save(tmp_path / "a.zip")
    for mode in (0o600, 0o640, 0o666):
        path.chmod(mode)
        assert stat.S_IMODE(save(path).stat().st_mode) == mode


def test_saving_to_a_link_writes_its_target(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = save(tmp_path / "elsewhere" / "a.zip"), tmp_path / "link.zip"
    link.symlink_to(target)
    save(link, counters={"num_timesteps": 99})
    assert link.is_symlink()
    assert load_checkpoint(target).counters == {"num_timesteps": 99}
    dangling = tmp_path / "dangling.zip"
    dangling.symlink_to(tmp_path / "elsewhere" / "b.zip")
    save(dangling)
    assert dangling.is_symlink()
    assert load_checkpoint(tmp_path / "elsewhere" / "b.zip").class_name == "Agent"


@pytest.mark.parametrize("name", [".", "", "..", "folder.zip"])
def test_folders_are_refused_as_paths(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        save(name)


def test_devices_are_not_replaced_by_files(tmp_path):
    # A pipe of our own: a test that fails on a real device would destroy it.
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(ValueError, match="folder or device"):
        write_archive(tmp_path / "pipe.zip", {"a": b""})
    assert stat.S_ISFIFO((tmp_path / "pipe.zip").stat().st_mode)


def test_duplicate_keys_nan_and_deep_nesting_are_refused(tmp_path):
    path = save(tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for text in ('{"format": 1, "format": 2}', '{"format": NaN}', "[" * 100_000, "\xff", "3"):
        write_archive(path, {**members, MANIFEST: text.encode("latin1")})
        with pytest.raises(ValueError, match="cannot be loaded"):
            load_checkpoint(path)


def test_sb3_file_is_refused_by_us_and_ours_by_sb3(tmp_path):
    PPO("MlpPolicy", "CartPole-v1", device="cpu").save(tmp_path / "ppo.zip")
    with pytest.raises(ValueError, match="saved by Stable-Baselines3"):
        load_checkpoint(tmp_path / "ppo.zip", "Agent")
    path = save(tmp_path / "a.zip")
    # SB3 names what it cannot read in a warning, which is where our sentence is; then it gives up.
    with (
        pytest.warns(UserWarning, match=r"saved by metarl_agents: load it with .*Agent\.load"),
        pytest.raises(KeyError, match="were not given"),
    ):
        PPO.load(path)


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = save(tmp_path / "a.zip")
    good = path.read_bytes()

    def fail(handle):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save(path, counters={"num_timesteps": 99})
    assert path.read_bytes() == good
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_file_objects_are_refused_with_the_remedy(tmp_path):
    with open(tmp_path / "x", "wb") as file, pytest.raises(TypeError, match="pathlib"):
        save(file)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -0.0,
        1e-300,
        float("inf"),
        "text",
        [1, [2.5, None]],
        (1, (2, "a")),
        {"a": {"b": (1,)}, "float": 3},
        {},
        Path("some/where"),
        th.nn.Tanh,
        {"activation": th.nn.ReLU},
    ],
    ids=str,
)
def test_arguments_survive_json(value):
    restored = decode(json.loads(json.dumps(encode(value), allow_nan=False)))
    assert restored == value
    assert type(restored) is type(value)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, np.bool_])
def test_arrays_survive_json(dtype):
    array = np.random.default_rng(0).normal(size=(2, 3, 1)).astype(dtype)
    restored = decode(json.loads(json.dumps(encode(array))))
    assert restored.dtype == array.dtype
    assert np.array_equal(restored, array)
    special = np.array([np.inf, -np.inf, np.nan, -0.0])
    restored = decode(json.loads(json.dumps(encode(special), allow_nan=False)))
    assert restored.tobytes() == special.tobytes()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint16, np.bool_, ">f8"])
def test_arrays_in_arguments_are_stored_as_tensors(tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    array.flags.writeable = False
    arguments = {"prior": array, "nested": {"a": [np.array(1.5), (array[:, ::2],)]}}
    path = save(tmp_path / "a.zip", arguments=arguments)
    loaded = load_checkpoint(path)
    assert loaded.tensors.keys() == {"w", "n"}
    assert np.array_equal(loaded.arguments["prior"], array)
    assert loaded.arguments["prior"].dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(loaded.arguments["nested"]["a"][1][0], array[:, ::2])
    assert loaded.arguments["nested"]["a"][0].shape == ()
    with zipfile.ZipFile(path) as archive:
        assert b"values" not in archive.read(MANIFEST).split(b'"spaces"')[0]


def test_numpy_scalars_become_numbers():
    assert encode(np.int64(3)) == 3
    assert encode(np.float32(0.1)) == float(np.float32(0.1))
    assert encode(np.bool_(True)) is True


@pytest.mark.parametrize(
    "value",
    [lambda x: x, print, object(), {1: 2}, {"f": np.sin}, [lambda: 0], {1, 2}, np.array(["a"])],
)
def test_values_that_no_file_can_hold_are_refused(value):
    with pytest.raises(ValueError, match=" "):
        encode(value)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1.0, np.inf, (2, 3), dtype=np.float32),
        spaces.Box(np.array([-1.0, 0.1]), np.array([1 / 3, 2.0]), dtype=np.float64),
        spaces.Box(0, 255, (4, 4, 3), dtype=np.uint8),
        spaces.Discrete(5, start=2),
        spaces.MultiDiscrete([3, 4]),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 1], [0, 0]]),
        spaces.MultiBinary(4),
        spaces.MultiBinary([2, 3]),
        spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(0.0, 1.0, (1,))}),
        spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary(2)]),
    ],
    ids=str,
)
def test_spaces_survive_json(space):
    restored = decode_space(json.loads(json.dumps(encode_space(space), allow_nan=False)))
    assert restored == space
    assert restored.dtype == space.dtype


def test_other_spaces_are_refused():
    with pytest.raises(ValueError, match="cannot be stored"):
        encode_space(spaces.Text(3))


def test_named_callables_are_activations_and_linear_schedules():
    assert named_callable("tanh") is th.nn.Tanh
    schedule = named_callable("lin_3e-4")
    assert isinstance(schedule, LinearSchedule)
    assert schedule(1.0) == pytest.approx(3e-4)
    assert schedule(0.0) == 0.0
    for name in ("os.system", "lin_", "lin_x", "Tanh"):
        with pytest.raises(ValueError, match="no known function"):
            named_callable(name)


FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
LOAD_PATH = ("checkpoint", "agent_file.py", "meta_algorithm", "training.py", "signals.py")


def load_path_files():
    common = Path(metarl_agents.__file__).parent / "common"
    found = [
        file
        for name in LOAD_PATH
        for path in common.glob(f"{name}*")
        for file in ([path] if path.suffix == ".py" else path.rglob("*.py"))
    ]
    assert len(found) >= 8
    return found


@pytest.mark.parametrize("path", load_path_files(), ids=lambda path: path.name)
def test_no_load_path_unpickles_evaluates_or_imports_by_name(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_MODULES
            assert not {alias.name for alias in node.names} & {
                "import_module",
                "load_from_zip_file",
            }
        if isinstance(node, ast.Name):
            assert node.id not in FORBIDDEN_CALLS
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {
                ("th", "load"),
                ("torch", "load"),
                ("np", "load"),
                ("importlib", "import_module"),
            }
