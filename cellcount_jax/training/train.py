"""The training loop: data on the device, steps in compiled runs, checkpoints, evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
from absl import logging
from jax import Array

from cellcount_jax import config as settings
from cellcount_jax import validation
from cellcount_jax.data import datasets, synthetic
from cellcount_jax.data.calibration_part import with_calibration
from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation import evaluate
from cellcount_jax.images import normalise
from cellcount_jax.inference.plan import make_plan
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.maps import targets
from cellcount_jax.training import fine_tuning, metrics_log, parallel, run_folder, stack, stopping
from cellcount_jax.training.run_folder import restore_variables
from cellcount_jax.training.step import (
    TrainState,
    create_train_state,
    draw_and_step,
    learning_rate_schedule,
)

ScannedSteps = Callable[[TrainState, stack.TrainingData, Array], tuple[TrainState, Any]]


@dataclasses.dataclass(frozen=True)
class Run:
    """Settings, folder, data and normalisation of a run."""

    config: ml_collections.ConfigDict
    workdir: Path
    dataset: Dataset
    normalisation: normalise.Normalisation

    def score(self, state: TrainState) -> dict[str, Any]:
        """Evaluates a state of the run, on any devices."""
        state = jax.device_get(state)
        return self.evaluate(int(state.step), state.variables)

    def evaluate(self, step: int, variables: Any) -> dict[str, Any]:
        """Writes model.zip and evaluation/; returns the content of evaluation/metrics.json."""
        first = self.dataset.labelled[0]
        model = TrainedModel(
            config=self.config,
            step=step,
            variables=variables,
            normalisation=self.normalisation,
            channels=first.image.shape[-1],
            spacing=first.spacing,
            spacing_known=first.spacing_known,
        )
        return evaluate.evaluate(model, self.dataset, self.workdir)


class Steps(NamedTuple):
    """Compiled runs of `train.scan_length` steps, see `parallel.scanned`."""

    free: ScannedSteps  # norms use the statistics of the batch
    frozen: ScannedSteps  # norms use their running statistics


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any] | None:
    """Trains, or goes on training, and evaluates at the end.

    Args:
      config: the experiment.
      workdir: folder for all that the run writes; one of the same config is resumed.

    Returns:
      The content of evaluation/metrics.json, or None if a signal stopped the run early.

    Raises:
      InputError: a setting or a file cannot be used, or another process trains in the folder;
        nothing has been written then.

    Examples:
      >>> from pathlib import Path
      >>> import numpy as np
      >>> from cellcount_jax import config, train_and_evaluate
      >>> blob = np.exp(-((np.indices((16, 16)) - 8) ** 2).sum(axis=0) / 16)
      >>> Path("cells").mkdir()
      >>> np.save("cells/a.npy", 100 * np.tile(blob, (1, 2)))
      >>> np.savetxt("cells/a.csv", [[8, 8], [8, 24]], "%d", ",", header="y,x", comments="")
      >>> config = config.default_config()
      >>> config.data.update(kind="folder", dir="cells", calibration_share=0.0)
      >>> config.model.update(levels=2, features=2, attention="none")  # tiny, to be quick
      >>> config.train.update(crop=(16, 16), batch_unlabelled=0, scan_length=1, steps=1)
      >>> metrics = train_and_evaluate(config, Path("run"))
      >>> metrics["step"], metrics["true"]
      (1, 2)
    """
    with run_folder.locked(workdir):
        return _train_and_evaluate(config, workdir)


def _train_and_evaluate(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any] | None:
    validation.validate(config)
    config, parent = fine_tuning.parent_of(config)
    devices = jax.devices()
    shares = {
        name: parallel.split_batch(config.train[name], len(devices), f"train.{name}")
        for name in ("batch_labelled", "batch_unlabelled")
    }
    dataset = load_dataset(config)
    run = Run(config, workdir, dataset, fit_normalisation(dataset, config, parent))
    _check_predictable(dataset, config)
    if config.train.tensorboard:
        metrics_log.require_tensorboard()
    data = stack.on_device(dataset, run.normalisation, config)
    parallel.on_first(lambda: run_folder.claim(workdir, config))
    logging.info("data: %s", dataset.description)
    if data.unlabelled is not None and not dataset.unlabelled:
        logging.info("no unlabelled images: the consistency loss uses the labelled ones")
    logging.info("%s, results in %s", parallel.describe(), workdir)

    state, key = initial_state(config, dataset)
    if parent is not None:
        logging.info("going on from the model %s", config.init_from)
        state = fine_tuning.with_weights(state, parent)
    restored = parallel.on_first(lambda: run_folder.restore(workdir / "checkpoints", state))
    if restored is not None:
        state = restored[1]
        logging.info("resuming %s after step %d of %d", workdir, restored[0], config.train.steps)
    state = parallel.from_first(state)
    geometry = targets.target_geometry(config, dataset.labelled[0].spacing)
    step = functools.partial(
        draw_and_step,
        config=config,
        geometry=geometry,
        peak=targets.peak_value(config, geometry),
        shares=shares,
    )
    scan = functools.partial(parallel.scanned, length=config.train.scan_length, devices=devices)
    steps = Steps(
        free=scan(functools.partial(step, frozen=False)),
        frozen=scan(functools.partial(step, frozen=True)),
    )
    state, data, key = parallel.replicate((state, data, key), devices)
    trained = _loop(run, steps, state, data, key)
    return None if trained is None else parallel.on_first(lambda: run.score(trained))


def evaluate_only(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates the latest checkpoint of a run.

    Args:
      config: of the run.
      workdir: of the run.

    Returns:
      The content of evaluation/metrics.json.

    Raises:
      InputError: there is no checkpoint, or the config is another.
    """
    validation.validate(config)
    config, parent = fine_tuning.parent_of(config)
    run_folder.compare(workdir, config)
    if run_folder.latest(workdir / "checkpoints") is None:
        raise InputError(f"{workdir}: has no checkpoint to evaluate; train first")
    dataset = load_dataset(config)
    logging.info("data: %s", dataset.description)
    channels = dataset.labelled[0].image.shape[-1]
    step, variables = restore_variables(workdir, config, channels=channels)
    run = Run(config, workdir, dataset, fit_normalisation(dataset, config, parent))
    return run.evaluate(step, variables)


def load_dataset(config: ml_collections.ConfigDict) -> Dataset:
    """The data set of a config: its folder, or the built-in synthetic one, split for calibration.

    Raises:
      InputError: see `datasets.load`; or the images have another number of dimensions.
    """
    d = config.data
    return with_calibration(_read(config), share=d.calibration_share, seed=d.split_seed)


def _read(config: ml_collections.ConfigDict) -> Dataset:
    """All labels of the data set of a config, in its training and test images."""
    d = config.data
    if d.kind == "synthetic" or not d.dir:
        if d.kind == "folder":
            raise InputError("config.data.dir = '': name the folder with your images")
        numbers = [None if n < 0 else n for n in (d.num_labelled, d.num_unlabelled)]
        return synthetic.synthetic_dataset(
            ndim=d.ndim, seed=d.split_seed, num_labelled=numbers[0], num_unlabelled=numbers[1]
        )
    dataset = datasets.load(d, seed=d.split_seed)
    first = dataset.labelled[0]
    # What a model that training goes on from is for is said by `fine_tuning.check_images`.
    if len(first.shape) != d.ndim and not config.init_from:
        raise InputError(
            f"{first.source}: is {len(first.shape)}D, but config.data.ndim = {d.ndim}; set"
            f" config.data.ndim = {len(first.shape)} with a train.crop and detect.min_distance of"
            f" {len(first.shape)} numbers"
        )
    return dataset


def fit_normalisation(
    dataset: Dataset, config: ml_collections.ConfigDict, parent: TrainedModel | None = None
) -> normalise.Normalisation:
    """The normalisation of a data set's training images, labelled or not.

    Args:
      dataset: the images.
      config: the experiment.
      parent: the model that training goes on from, whose normalisation stays.

    Raises:
      InputError: names an image, of training or test, that cannot be normalised so, or that the
        model cannot take.
    """
    training = (*dataset.labelled, *dataset.unlabelled)
    if parent is not None:
        fine_tuning.check_images(dataset, config, parent)
        fine_tuning.warn_of_intensities(dataset, parent, config.init_from)
        fitted = parent.normalisation
    else:
        fitted = normalise.fit(
            (s.image for s in training),
            config.data.normalisation,
            background=config.data.background,
            spacing=training[0].spacing,
        )
    for sample in itertools.chain(training, dataset.calibration, *dataset.tests.values()):
        with _naming(sample):
            fitted(sample.image, original=sample.original)
    return fitted


def initial_state(config: ml_collections.ConfigDict, dataset: Dataset) -> tuple[TrainState, Array]:
    """The state at step 0 and the key of all steps, as the config's seed makes them."""
    init_key, key = jax.random.split(jax.random.key(config.seed))
    create = functools.partial(
        create_train_state,
        config=config,
        channels=dataset.labelled[0].image.shape[-1],
        axis_name=parallel.AXIS,
    )
    # It runs once: compiling it well takes ten times as long as compiling it badly.
    quickly = {"xla_backend_optimization_level": 1}
    return jax.jit(create, compiler_options=quickly)(init_key), key


def _check_predictable(dataset: Dataset, config: ml_collections.ConfigDict) -> None:
    """Makes sure, before hours of training, that the images can be evaluated afterwards."""
    labelled = dataset.labelled, dataset.calibration
    for sample in itertools.chain(*labelled, *dataset.tests.values()):
        with _naming(sample):
            make_plan(config, sample.shape)


@contextlib.contextmanager
def _naming(sample: Sample) -> Iterator[None]:
    """Adds the image's name to an error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{sample.source or sample.name}: {error}") from error


def _loop(
    run: Run, steps: Steps, state: TrainState, data: stack.TrainingData, key: Array
) -> TrainState | None:
    """Trains to the last step; None if a signal asked to stop."""
    t = run.config.train
    step, freeze_step = int(state.step), settings.freeze_step(run.config)
    learning_rate = learning_rate_schedule(run.config)
    recording = metrics_log.recording(
        run.workdir, after_step=step, total=t.steps, tensorboard=t.tensorboard
    )
    with stopping.requested() as stop_requested, recording as record:
        while step < t.steps:
            started = time.perf_counter()
            scanned_steps = steps.frozen if step >= freeze_step else steps.free
            state, losses = scanned_steps(state, data, key)
            means = {name: float(values.mean()) for name, values in losses.items()}
            step += t.scan_length
            seconds = round(time.perf_counter() - started, 4)
            rate = float(learning_rate(step - 1))  # of the step that was just finished
            record(step, {**means, "learning_rate": rate, "seconds": seconds})
            if not all(map(math.isfinite, means.values())):
                raise InputError(
                    f"training diverged: the loss is {means['loss']} at step {step}, the gradient's"
                    f" norm {means['gradient_norm']}; lower config.optim.learning_rate ="
                    f" {run.config.optim.learning_rate}"
                )
            # Before the checkpoint: a run that resumes from it does not evaluate this step again.
            if t.evaluate_every and step % t.evaluate_every == 0 and step < t.steps:
                content = parallel.on_first(functools.partial(run.score, state))
                if content is not None:
                    record(step, {name: content[name] for name in ("f1", "mae", "threshold")})
            stop = parallel.any_process(stop_requested())
            if step % t.checkpoint_every == 0 or step == t.steps or stop:
                folder = run.workdir / "checkpoints"
                save = functools.partial(run_folder.save, folder, step, state)
                parallel.on_first(functools.partial(save, keep=t.keep_checkpoints))
            if stop:
                logging.info("stopped after step %d; the same command goes on from there", step)
                return None
    return state
