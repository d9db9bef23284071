"""A whole run as the command line starts it: data, model, loop, folder; and reading a run back."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpucnn
from gpucnn import backends, data, models, random
from gpucnn.data import DataLoader, Dataset, loader_for
from gpucnn.device import Device
from gpucnn.nn import Module
from gpucnn.optim import MovingAverage
from gpucnn.training import build, recipes
from gpucnn.training.callbacks import Callback, Progress, Report, Silent
from gpucnn.training.checkpoint import Checkpoints, read_checkpoint
from gpucnn.training.config import Config
from gpucnn.training.early_stop import EarlyStop
from gpucnn.training.errors import TrainingError, TrainingInterrupted
from gpucnn.training.inputs import transforms
from gpucnn.training.interrupts import Interrupts, StopRequested
from gpucnn.training.loggers import CSVLog, JSONLines, TensorBoard
from gpucnn.training.loop import EpochRecord, Trainer
from gpucnn.training.run_folder import CHECKPOINT, RunFolder, check_output, default_path
from gpucnn.training.tables import STRETCHED

CURVES_SECONDS = 60.0  # curves.png is drawn at the end, and no more often than this before


@dataclass(frozen=True)
class Summary:
    """What a run came to: its folder, its config with the data that it really trained on, epochs and steps done, the
    last epoch's record (None for a run without an epoch), all its seconds, those of weights from data, training steps
    and the last evaluation alone, why it stopped before its last epoch, if it did, and how many steps were skipped
    because a float16 gradient overflowed."""

    folder: Path
    config: Config
    data: str
    source: str
    device: str
    epochs: int
    steps: int
    last: EpochRecord | None
    seconds: float
    timed_seconds: float
    stopped: str | None = None
    skipped_steps: int | None = None


def train(
    config: Config | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Trains as ``config`` says, or goes on with the run of ``resume``, and keeps everything in a folder.

    Args:
        config: what to train; the lecture network's recipe where it is None.
        out: the run's folder; runs/<model>-<data>-<time> where it is None.
        resume: a run's folder or its checkpoint. ``config`` and ``out`` must be None then.
        changes: keys of the config that a resumed run changes (:data:`~gpucnn.training.config.RESUMABLE`).
        overwrite: whether a run that is in ``out`` already may be replaced.
        progress: what is told how it goes.

    Raises:
        ValueError, TypeError, OSError: bad input: unknown names, data that cannot be had, a folder that cannot be
            written or holds a run, a checkpoint that is damaged, of another model, or of a run on a device that is not
            here. Nothing was trained.
        RuntimeError: a device that cannot be used.
        TrainingError: the loss or a weight became NaN or infinite; the last good checkpoint is there.
        TrainingInterrupted: Ctrl-C or SIGTERM; the checkpoint is written.
    """
    progress = progress if progress is not None else Silent()
    if resume is None:
        run = _Run.new(config if config is not None else recipes.config_for(), out, overwrite, progress)
    elif config is not None or out is not None:
        raise ValueError(
            "train: a run that is resumed has its config and its folder: give changes instead of config and out"
        )
    else:
        run = _Run.resumed(checkpoint_path(resume), changes or {}, progress)
    return run.execute()


class _Run:
    """The parts of a run, put together."""

    def __init__(self, config: Config, parts: tuple[Dataset, Dataset], folder: RunFolder, progress: Progress) -> None:
        self.config, self.folder, self.progress = config, folder, progress
        self.train_data, self.test_data = parts
        random.manual_seed(config.seed)
        model = models.create(config.model, num_classes=len(self.train_data.classes), device=config.device)
        build.choose_instances(config, model)
        self.train_part, val = build.split(self.train_data, config.val_split, config.seed)
        loaders = build.loaders(config, model, self.train_part, val, self.test_data)
        steps = len(loaders.train)
        optimizers = build.optimizers(config, model)
        self.interrupts = Interrupts()
        self.checkpoints = Checkpoints(folder, config, self.train_data.classes)
        self.curves = _Curves(folder, progress)
        self.trainer = Trainer(
            model,
            loaders.train,
            loaders.test,
            optimizers,
            build.average(config, model),
            build.schedulers(config, optimizers, steps),
            [*build.freezes(config, model, steps), *self._callbacks()],
            val=loaders.val,
            schedule_every="step",
            accumulate=config.accumulate,
            reduction=config.reduction,
            label_smoothing=config.label_smoothing,
            clip_norm=config.clip_norm,
            tta=config.tta,
            log_steps=config.log_steps,
            precision=config.precision,
            graph=config.graph,
        )
        self.preparation_seconds = 0.0

    def _callbacks(self) -> list[Callback]:
        """In the order of writing: a checkpoint knows the lines before it, and a signal is heeded with all written."""
        config, folder = self.config, self.folder
        return [
            *([EarlyStop(config.early_stop)] if config.early_stop is not None else []),
            JSONLines(folder.metrics),
            CSVLog(folder.csv),
            *([TensorBoard(folder.tensorboard)] if config.tensorboard else []),
            self.checkpoints,
            Report(self.progress),
            self.curves,
            self.interrupts,
        ]

    @classmethod
    def new(cls, config: Config, out: str | Path | None, overwrite: bool, progress: Progress) -> _Run:
        """A run from the start, its folder made."""
        config = _on_device(dataclasses.replace(config, model=models.canonical_name(config.model)))
        path = Path(out) if out is not None else default_path(config.model, "data")
        check_output(path)
        if not overwrite:
            RunFolder(path).check_free()
        parts = _find_data(config, progress)
        config = dataclasses.replace(config, data=parts[0].name)
        folder = RunFolder(path if out is not None else default_path(config.model, parts[0].name))
        run = cls(config, parts, folder, progress)
        started = time.perf_counter()
        build.start_from_data(run.trainer.model, run.train_part, config.device)
        run.preparation_seconds = time.perf_counter() - started
        folder.create(overwrite)  # last: what is wrong with the rest leaves no folder, and no run replaced
        folder.write_config({**config.to_dict(), "gpucnn": gpucnn.__version__, "source": parts[0].source})
        return run

    @classmethod
    def resumed(cls, path: Path, changes: Mapping[str, Any], progress: Progress) -> _Run:
        """A run as its checkpoint left it."""
        content = read_checkpoint(path, device="cpu")
        config = content["config"].changed(changes)
        try:
            config = _on_device(config)
        except RuntimeError as error:
            raise ValueError(f"{path}: the run's device cannot be used: {error}; --device names another") from error
        folder = RunFolder(path.parent)
        folder.check_writable()
        parts = _find_data(config, progress)
        run = cls(config, parts, folder, progress)
        try:
            run.trainer.load_state_dict(content["trainer"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: not a checkpoint of {config.model} on {config.data}, or damaged: {error}"
            ) from error
        if config.epochs != content["config"].epochs and config.schedule["name"] in STRETCHED:
            progress.message(
                f"the schedule {config.schedule['name']} is stretched from {content['config'].epochs} to"
                f" {config.epochs} epochs: the steps so far were taken by the old one"
            )
        folder.remove_leftovers()
        folder.write_config({**config.to_dict(), "gpucnn": gpucnn.__version__, "source": parts[0].source})
        return run

    def execute(self) -> Summary:
        """Trains to the end."""
        started = time.perf_counter()
        trainer = self.trainer
        self.progress.message(self._beginning())
        records: list[EpochRecord] = []
        try:
            with self.interrupts:
                try:
                    records = trainer.run(self.config.epochs)
                except StopRequested as stop:
                    self.checkpoints.save(trainer)
                    raise stop
        except StopRequested as stop:
            self._stopped(stop)
        except TrainingError as error:
            raise TrainingError(f"{error}; {self.checkpoints.kept()}", error.step) from None
        finally:
            self.curves.draw()
        return Summary(
            folder=self.folder.path,
            config=self.config,
            data=self.train_data.name,
            source=self.train_data.source,
            device=str(self.config.device),
            epochs=trainer.epoch,
            steps=trainer.step,
            last=records[-1] if records else None,
            seconds=time.perf_counter() - started,
            timed_seconds=self.preparation_seconds + _timed(records),
            stopped=trainer.stopped,
            skipped_steps=trainer.skipped_steps,
        )

    def _beginning(self) -> str:
        """What is about to happen, and where it is kept."""
        done, wanted = self.trainer.epoch, self.config.epochs
        if done and done >= wanted:
            return f"nothing is left to do: {done} of {wanted} epochs are done, --epochs asks for more"
        begins = "training" if self.trainer.step == 0 else f"going on after step {self.trainer.step} with"
        return (
            f"{begins} {self.config.model} on {self.train_data.name} ({self.train_data.source}),"
            f" device {self.config.device}, run {self.folder.path}"
        )

    def _stopped(self, stop: StopRequested) -> None:
        interrupted = TrainingInterrupted(stop.signum, self.trainer.step, self.folder.checkpoint)
        handler = signal.getsignal(stop.signum)
        if stop.signum == signal.SIGTERM and handler == signal.SIG_DFL:
            self.progress.message(str(interrupted))
            self.curves.draw()
            signal.raise_signal(stop.signum)  # the system ends the process as SIGTERM does
        elif stop.signum == signal.SIGTERM and callable(handler):
            with contextlib.suppress(KeyboardInterrupt):  # the error below says more
                signal.raise_signal(stop.signum)
        raise interrupted from None


def _timed(records: Sequence[EpochRecord]) -> float:
    """Seconds of training, and of the last evaluation that tells the result."""
    if not records:
        return 0.0
    last = records[-1]
    evaluation = last.evaluation_seconds if last.tta_seconds is None else last.tta_seconds
    return sum(record.train_seconds for record in records) + evaluation


class _Curves(Callback):
    """Draws curves.png after an epoch, if the last picture is old, and when told to."""

    def __init__(self, folder: RunFolder, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self._drawn = time.monotonic()

    def on_epoch_end(self, trainer: Trainer, record: EpochRecord) -> None:
        if time.monotonic() - self._drawn > CURVES_SECONDS:
            self.draw()

    def draw(self) -> None:
        """curves.png of the metrics so far. A picture that cannot be drawn is no reason to lose a run."""
        from gpucnn.viz import curves

        self._drawn = time.monotonic()
        try:
            curves.draw(self.folder.metrics, self.folder.curves)
        except (ImportError, OSError, ValueError) as error:
            self.progress.message(f"curves.png could not be drawn: {error}")


def _on_device(config: Config) -> Config:
    """The config with its device by name. Raises RuntimeError with the reason where it cannot be used."""
    device = backends.default_device() if config.device is None else gpucnn.device(config.device)
    backends.get(device)
    return dataclasses.replace(config, device=str(device))


def _find_data(config: Config, progress: Progress) -> tuple[Dataset, Dataset]:
    limits = (config.train_images, config.test_images)
    return data.find(config.data, config.data_dir, progress.message, config.default_data, limits)


@dataclass(frozen=True)
class LoadedRun:
    """A trained model and how it came about; unpacks as ``model, config``."""

    model: Module
    config: Config
    classes: tuple[str, ...]
    epoch: int
    step: int
    averaged: bool

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.config))

    def test_loader(self, dataset: Dataset, batch_size: int | None = None) -> DataLoader:
        """Batches of ``dataset`` as the model takes them in evaluation, on its device."""
        _, transform = transforms(self.model, dataset.name)
        device = next(iter(self.model.parameters())).device
        size = self.config.batch_size if batch_size is None else batch_size
        return loader_for(dataset, size, transform=transform, device=device)


def checkpoint_path(path: str | Path) -> Path:
    """The checkpoint of a run's folder, or ``path`` itself where it is a file. Raises FileNotFoundError that says what
    is missing."""
    path = Path(path)
    if path.is_dir():
        if not (path / CHECKPOINT).is_file():
            raise FileNotFoundError(f"{path}: no run to go on with: it has no {CHECKPOINT}")
        return path / CHECKPOINT
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such run or checkpoint")
    return path


def load_run(
    path: str | Path, device: str | Device | None = None, model: str | None = None, average: bool = True
) -> LoadedRun:
    """The model of a run's folder or checkpoint, in evaluation mode, with the moving average as its weights where
    there is one.

    Args:
        path: the folder or the checkpoint.
        device: where the model shall be; the default device where it is None.
        model: what it must be a checkpoint of, where that matters.
        average: False for the weights themselves.

    Raises:
        ValueError: a damaged checkpoint, or one of another model; names the file.
        OSError: no such file.
        RuntimeError: a device that cannot be used.
    """
    place = backends.default_device() if device is None else gpucnn.device(device)
    backends.get(place)
    file = checkpoint_path(path)
    content = read_checkpoint(file, device="cpu")
    config: Config = content["config"]
    if model is not None and models.canonical_name(model) != config.model:
        raise ValueError(f"{file}: a checkpoint of {config.model}, not of {models.canonical_name(model)}")
    classes = tuple(content["classes"])
    network = models.create(config.model, num_classes=len(classes), device=place)
    state = content["trainer"]
    try:
        network.load_state_dict(state["model"])
        averaged = average and state["average"] is not None
        if averaged:
            moving = MovingAverage(network.parameters(), buffers=network.buffers())
            moving.load_state_dict(state["average"])
            moving.copy_to()
        epoch, step = int(state["epoch"]), int(state["step"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not a checkpoint of {config.model}, or damaged: {error}") from error
    network.eval()
    return LoadedRun(network, config, classes, epoch, step, averaged)
