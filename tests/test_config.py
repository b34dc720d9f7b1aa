"""Every published configuration, checked abstractly; and the command line at the edge."""

import dataclasses
import os
import pathlib
import runpy
import subprocess
import sys
from dataclasses import replace

import chex
import jax
import pytest
from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags, config_path

from ebt_jax.config import ELSEWHERE, TABLES, load, named_shares, plain
from ebt_jax.data import pusht
from ebt_jax.data.mixture import open_mixture
from ebt_jax.data.oxe import ENTRIES
from ebt_jax.data.settings import DataSettings, bundled_sample_dir
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.methods import METHODS, method_settings, settings_table
from ebt_jax.policy import empty_batch
from ebt_jax.specs import ActionSpec, CameraSpec, LanguageSpec, ObservationSpec, Specs
from ebt_jax.training.optimizer import make_optimizer, tuned
from ebt_jax.training.settings import Settings
from ebt_jax.training.state import init_state
from ebt_jax.tree import flatten

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
PUBLISHED = [(path, variant) for path in CONFIGS for variant in runpy.run_path(str(path))["VARIANTS"]]


def specs_of(settings: DataSettings) -> Specs:
    """What the named dataset would tell the model, from descriptions alone where the data is not here."""
    if settings.mixture in ("metaworld_pick_place_v3", "metaworld_nine", "metaworld_tenth"):
        return open_mixture(replace(settings, data_dir=bundled_sample_dir(), mixture="metaworld_pick_place_v3")).specs
    cameras = tuple(CameraSpec(name, settings.image_size, settings.image_size) for name in settings.cameras)
    if settings.mixture == "pusht":
        proprio, action, frame, language = pusht.PROPRIO, pusht.ACTION, pusht.FRAME, LanguageSpec()
    else:
        spec: DatasetSpec = ENTRIES[settings.mixture].spec
        proprio, action, frame, language = spec.proprio, spec.action, spec.action_frame, LanguageSpec("embedding", 1, spec.embedding_size)
    return Specs(
        ObservationSpec(cameras, proprio, language, settings.observation_horizon), ActionSpec(action, frame, settings.action_horizon)
    )


@pytest.mark.parametrize(("path", "variant"), PUBLISHED, ids=lambda value: getattr(value, "stem", value))
def test_every_config_makes_a_training_state_and_a_loss(path, variant):
    """Shapes alone: parameters, optimiser, EMA, one loss, one sampled chunk."""
    config = load(path, variant)
    if config.data.data_dir is None:
        config.data.data_dir = "anywhere"
    settings = Settings.from_dict(plain(config))
    specs = specs_of(settings.data)
    method = tuned(settings.make_method(specs), settings.optimizer)
    batch = empty_batch(specs, 2)
    state = jax.eval_shape(lambda: init_state(method, make_optimizer(settings.optimizer, settings.num_steps), batch, 0))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    loss, _ = jax.eval_shape(method.loss, state.params, batch, keys)
    assert loss.shape == ()
    context = jax.eval_shape(method.encode, state.params, batch.observation)
    sample = jax.eval_shape(
        lambda p, c, k: method.sample(p, c, k, settings.sample_steps or method.sample_steps), state.params, context, keys
    )
    assert sample.actions.shape == batch.actions.shape


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, env={**os.environ, "XLA_FLAGS": "", **environment}, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_full_configuration_without_data_says_so_and_runs_the_sample(tmp_path):
    small = ("--config.num_steps=2", "--config.eval_interval=0", "--config.save_interval=0", "--config.batch_size=8")
    done = run("ebt_jax.train", "--config=configs/oxe.py", f"--workdir={tmp_path / 'run'}", *small)
    assert done.returncode == 0, done.stderr[-2000:]
    for words in ("was given no data_dir", "configs/oxe.py:sample", "--config.data.data_dir=/data/oxe", "gs://"):
        assert words in done.stderr
    assert "orbax" not in done.stderr
    assert done.stdout.strip().endswith(f"trained to step 2 in {tmp_path / 'run'}")
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert '"metaworld_pick_place_v3"' in (tmp_path / "run" / "config.json").read_text()


def test_a_configuration_without_a_sample_asks_for_data(tmp_path):
    done = run("ebt_jax.train", "--config=configs/pusht.py", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert "data.data_dir must name the folder of datasets" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--config=configs/oxe.py:sample",), 2, "workdir"),
        (("--config=configs/oxe.py:sample", "--workdir=gs://bucket/run"), 2, "--workdir=gs://bucket/run: must lie on a disk"),
        (("--config=configs/oxe.py:sampel", "--workdir=x"), 2, "variant of configs/oxe.py must be one of"),
        (("--config=configs/oxe.py:sample", "--workdir=x", "--config.batchsize=3"), 2, "Did you mean batch_size?"),
        (("--config=configs/oxe.py:sample", "--workdir=x", "--config.method.flow.num_levels=3"), 2, "num_levels"),
        (
            ("--config=configs/oxe.py:sample", "--workdir={tmp}", "--config.model.film=True", "--config.mcmc.num_steps=0"),
            2,
            "mcmc.num_steps must be at least 1, got 0",
        ),
        (("--config=configs/oxe.py:sample", "--workdir={tmp}", "--profile=9"), 2, "profile must be START:STOP"),
        (("--help",), 0, ""),
    ],
)
def test_exit_codes_and_messages(arguments, code, words, tmp_path):
    done = run("ebt_jax.train", *(argument.format(tmp=tmp_path / "run") for argument in arguments))
    assert done.returncode == code, done.stderr[-2000:]
    assert words in done.stderr + done.stdout


def test_unknown_and_missing_keys_are_listed(tiny_config):
    broken = {**tiny_config, "optimizer": {**tiny_config["optimizer"], "lr": 1.0}}
    with pytest.raises(ValueError, match=r"got unknown \['optimizer.lr'\]"):
        Settings.from_dict(broken)
    with pytest.raises(ValueError, match=r"missing \['seed'\]"):
        Settings.from_dict({name: value for name, value in tiny_config.items() if name != "seed"})
    with pytest.raises(ValueError, match="execution_horizon must be at most data.action_horizon = 4, got 5"):
        Settings.from_dict({**tiny_config, "execution_horizon": 5})


@pytest.mark.parametrize(
    ("table", "changes", "words"),
    [
        ("data", {"data_dir": None}, r"missing \['data\.data_dir'\]"),
        ("model", {"cameras": None}, r"missing \['model\.cameras'\]"),
        ("model", {"variant": None}, r"missing \['model\.variant'\]"),
        ("model", {"cameras": "primary"}, r"model\.cameras must be a list of names, got 'primary'"),
        (
            "model",
            {"cameras": ["(primary,wrist)"]},
            r"got \['\(primary,wrist\)'\]\. Quote .*: --config\.model\.cameras=\"\('primary', 'wrist'\)\"\.$",
        ),
        ("model", {"width": "wide"}, r"model\.width must be a whole number, got 'wide'"),
        ("data", {"mixture": '{"a": 2.0,'}, r"data\.mixture must be a name or JSON like .*, got '\{\"a\": 2\.0,'"),
        ("data", {"mixture": {"a": "much"}}, r"weights of data\.mixture must be numbers, got \{'a': 'much'\}"),
        ("data", {"mixture": 3}, r"data\.mixture must be a name, a file, or names with weights, got 3"),
        ("data", {"filters": 3}, r"data\.filters must be a table of settings, got 3"),
        ("data", {"filters": {"min_steps": 2.5}}, r"data\.filters\.min_steps must be a whole number, got 2\.5"),
        ("mcmc", {"num_steps": 2.5}, r"mcmc\.num_steps must be a whole number, got 2\.5"),
        ("mcmc", {"num_steps": True}, r"mcmc\.num_steps must be a whole number, got True"),
        ("mcmc", {"stop_gradient": 1}, r"mcmc\.stop_gradient must be True or False, got 1"),
        ("optimizer", {"learning_rate": "1e-3"}, r"optimizer\.learning_rate must be a number, got '1e-3'"),
        ("method", {"num_starts": 2.5}, r"method\.num_starts must be a whole number, got 2\.5"),
        ("", {"batch_size": 2.5}, r"^batch_size must be a whole number, got 2\.5"),
        ("", {"model": "base"}, r"model must be a table of settings, got 'base'"),
    ],
)
def test_a_mistake_in_a_config_is_named_with_its_key(tiny_config, table, changes, words):
    """None takes the key away."""
    changed = {**(tiny_config[table] if table else tiny_config), **changes}
    changed = {key: value for key, value in changed.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        Settings.from_dict({**tiny_config, table: changed} if table else changed)


def test_a_tie_wants_windows_of_many_episodes_in_a_batch(tiny_config):
    tied, together = {"name": "equilibrium", "tie_weight": 0.5}, {**tiny_config["data"], "windows_per_visit": 8}
    Settings.from_dict({**tiny_config, "method": tied}).check_batches(1)
    Settings.from_dict({**tiny_config, "data": together}).check_batches(1)
    both = Settings.from_dict({**tiny_config, "method": tied, "data": together})  # what was trained so is still read
    with pytest.raises(ValueError, match=r"data\.windows_per_visit must be 1 beside method\.tie_weight = 0\.5, got 8"):
        both.check_batches(1)


def test_a_run_keeps_what_its_mixtures_file_said(tiny_config, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"a": 2, "b": 1}')
    values = {**tiny_config, "data": {**tiny_config["data"], "mixture": str(path)}}
    assert named_shares(values)["data"]["mixture"] == {"a": 2.0, "b": 1.0}
    assert named_shares(tiny_config) == tiny_config


def test_a_config_without_variants_has_none(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def get_config():\n    raise AssertionError\n")
    assert load(path, "sample") is None


def test_a_mixture_may_be_json(tiny_config):
    for mixture in ('{"a": 2.0, "b": 1.0}', {"a": 2.0, "b": 1}):
        data = {**tiny_config["data"], "mixture": mixture}
        assert Settings.from_dict({**tiny_config, "data": data}).data.mixture == {"a": 2.0, "b": 1.0}


@pytest.mark.parametrize("path", ["oxe.py", "pusht.py", "bridge.py", "finetune.py"])
@pytest.mark.parametrize("name", METHODS)
def test_any_method_is_one_flag_away(path, name):
    """--config.method.name=NAME, and --config.method.NAME.SETTING=VALUE for the settings of that method and no other's."""
    config = load(ROOT / "configs" / path)
    config.lock()
    config.method.name = name
    for setting, value in settings_table()[name].items():
        setattr(config.method[name], setting, value)
        with pytest.raises((AttributeError, KeyError)):
            setattr(config.method[name], f"{setting}s", value)
    method = plain(config)["method"]
    assert method == {"name": name, **settings_table()[name]}
    assert method_settings(method) == METHODS[name][0]()
    config.data.data_dir = "anywhere"
    assert Settings.from_dict(plain(config)).method["name"] == name


def parsed(path, *arguments):
    """The plain values of a config file with these flags."""
    values, argv = flags.FlagValues(), ["train", f"--config={path}", *arguments]
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, lock_config=True, sys_argv=argv)
    values(argv)
    return plain(values["config"].value)


EXAMPLES = {int: ("3", 3), float: ("0.25", 0.25), bool: ("True", True), str: ("x", "x"), tuple: ("('a','b')", ["a", "b"])}
EXAMPLES[ConfigDict] = ("{'wrist': {'crop': 0.5}}", {"wrist": {"crop": 0.5}})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("table", TABLES)
def test_every_setting_is_one_flag_away(path, table):
    """--config.KEY=VALUE for every field of every dataclass of settings; what no flag sets is not in the run's config.json."""
    config, untouched = load(path), plain(load(path))
    names = [field.name for field in dataclasses.fields(TABLES[table]) if f"{table}{field.name}" not in ELSEWHERE]
    keys = [table + name for name in names if f"{table}{name}." not in TABLES and table + name != "method"]
    examples = {key: EXAMPLES[config_path.get_type(key, config)] for key in keys}
    found = flatten(parsed(path, *(f"--config.{key}={text}" for key, (text, _) in examples.items())))
    assert found == {**flatten(untouched), **flatten({key: value for key, (_, value) in examples.items()})}
    assert None not in {key: value for key, value in flatten(untouched).items() if key != "data.data_dir"}.values()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("data.idx_processes", r"one of action_horizon, .*; got 'idx_processes'\. Did you mean index_processes\?"),
        ("learning_rate", r"got 'learning_rate'\. Did you mean optimizer\.learning_rate\?"),
        ("optimiser.b2", r"got 'optimiser'\. Did you mean optimizer\?"),
        ("method.flow.levels", r"got 'levels'"),
    ],
)
def test_an_unknown_key_is_told_the_nearest(key, words):
    with pytest.raises((AttributeError, KeyError), match=words):
        parsed(ROOT / "configs" / "pusht.py", f"--config.{key}=3")


@pytest.mark.parametrize("path", ["oxe.py", "pusht.py", "bridge.py"])
def test_any_encoder_is_one_flag_away(path):
    """What a published encoder needs, set by flags, reaches the network and the tokenizer."""
    config = load(ROOT / "configs" / path)
    config.lock()
    config.data.data_dir = "anywhere"
    config.model.update({"vision": "dinov2_base", "vision_weights": "seen", "vision_frozen": True})
    config.model.update({"language": "t5_base", "language_weights": "read"})
    settings = Settings.from_dict(plain(config))
    assert (settings.model.vision, settings.model.language) == ("dinov2_base", "t5_base")
    assert settings.optimizer.freeze == ("*/dinov2/*", "*/t5/*")
    assert settings.data.tokenizer == "read"
    with pytest.raises(TypeError):
        config.model.patch_size = "large"


@pytest.mark.parametrize("path", ["oxe.py", "pusht.py", "bridge.py", "finetune.py", "paper.py"])
def test_what_is_seen_of_the_state_is_one_flag_away(path):
    """--config.data.proprio="('agent_*',)"."""
    config = load(ROOT / "configs" / path)
    config.lock()
    config.data.data_dir = "anywhere"
    assert Settings.from_dict(plain(config)).data.proprio == DataSettings.proprio == ("*",)
    config.data.proprio = ("agent_*",)
    assert Settings.from_dict(plain(config)).data.proprio == ("agent_*",)


def test_the_full_configuration_with_published_encoders():
    """Shapes alone: DINOv2 sees 224 x 224 pixels, T5 reads its own ids, and the loss differentiates through what is not frozen."""
    config = load(ROOT / "configs" / "oxe.py")
    config.data.data_dir = "anywhere"
    config.model.update({"vision": "dinov2_small", "language": "t5_base"})
    settings = Settings.from_dict(plain(config))
    spec = specs_of(settings.data)
    ids = LanguageSpec("tokens", 32, 3, "unigram", "a\t0\nb\t0\nc\t0")
    specs = dataclasses.replace(spec, observation=dataclasses.replace(spec.observation, language=ids))
    method, batch = settings.make_method(specs), empty_batch(specs, 2)
    optimizer = make_optimizer(settings.optimizer, settings.num_steps)
    state = jax.eval_shape(lambda: init_state(method, optimizer, batch, 0))
    assert set(state.params["tokens"]["language"]) == {"t5", "norm", "project"}
    assert "dinov2" in state.params["tokens"]["images"]
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    gradient = jax.eval_shape(jax.grad(lambda p, k: method.loss(p, batch, k)[0]), state.params, keys)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, state.params)


def test_settings_of_a_method_that_was_not_chosen_change_nothing():
    """So a run may be resumed under a newer config file that offers more methods."""
    first, second = load(ROOT / "configs" / "oxe.py", "sample"), load(ROOT / "configs" / "oxe.py", "sample")
    second.method.diffusion.num_levels = 50
    assert plain(first) == plain(second)
    first.method.name = second.method.name = "diffusion"
    assert plain(first)["method"]["num_levels"] == 100
    assert plain(second)["method"]["num_levels"] == 50
