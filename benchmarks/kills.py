"""Kill the backend and trainings at random moments while corrections are accepted.

    python benchmarks/kills.py --kills 50

A backend process and a client that accepts corrections and starts trainings work in a temporary
folder with a small model of random weights; as often as asked, one of the processes is killed
with SIGKILL. What was killed is started again, or gone on with, as a person would. In the end it
is checked that every correction that was answered with 201 is there and reads with its SHA-256,
that no file is corrupt, and that every training has ended or says why not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil

from clsclip.errors import ClsClipError
from clsclip.model.report import read_report
from clsclip.model.run_state import read_process, read_state
from clsclip.model.versions import VERSIONS_VARIABLE
from clsclip.store.store import STORE_VARIABLE, AnnotationStore
from clsclip.wire import TOKEN_VARIABLE, ReadyLine
from clsclip.wire_annotations import Annotation, Correction, encode_correction
from clsclip.wire_training import Training, TrainingList, VersionList

TOKEN = "kills"
SIDE = 64
PAUSES = (0.05, 15.0)
"""Seconds between two kills, at random: from the start of a process to the middle of its work."""

PACE = 0.5
"""Seconds between two corrections."""

TRAIN = """
import sys
from clsclip.training import checks, holdout
holdout.PROBES = holdout.QUESTIONS = 1
checks.SAVED_EVERY = 0.5
from clsclip.cli.train import main
sys.exit(main())
"""
"""The command with few drawn scenes and many checkpoints."""

BACKEND = f"""
import sys
from clsclip.service import training_processes
training_processes.COMMAND = (sys.executable, "-c", {TRAIN!r})
from clsclip.cli.backend import main
sys.exit(main(sys.argv[1:]))
"""


class Backend:
    """A backend that is started again whenever it is gone."""

    def __init__(self) -> None:
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", BACKEND, "--device", "cpu"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, TOKEN_VARIABLE: TOKEN},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.url = ReadyLine.model_validate_json(self.process.stdout.readline()).url
        self.starts += 1

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client of whichever backend listens now."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(
            base_url=self.url, headers=headers, timeout=30, trust_env=False
        ) as client:
            yield client


class Acceptance(threading.Thread):
    """Accepts one correction after the other, and remembers what was answered with 201."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(name="acceptance", daemon=True)
        self.accepted: list[Annotation] = []
        self.unanswered = 0
        self._backend, self._over = backend, threading.Event()

    def run(self) -> None:
        """Accept until it is told to stop."""
        number = 0
        while not self._over.wait(PACE):
            number += 1
            with suppress(httpx.HTTPError), self._backend.client() as client:
                self.unanswered += 1
                answer = client.post("/v1/annotations", content=encode_correction(drawn(number)))
                if answer.status_code == 201:
                    self.accepted.append(Annotation.model_validate_json(answer.content))
                    self.unanswered -= 1

    def stop(self) -> None:
        """Accept no more."""
        self._over.set()
        self.join()


def drawn(number: int) -> Correction:
    """An image with a disk."""
    rng = np.random.default_rng(number)
    disk = np.hypot(*(np.indices((SIDE, SIDE)) - rng.uniform(15, 49, (2, 1, 1)))) < 10
    image = rng.integers(0, 60, (SIDE, SIDE), dtype=np.uint8)
    image[disk] += 180
    return Correction(image, disk.astype(np.uint8), ("blob",))


def tiny_model(path: Path) -> None:
    """Write a small model with random weights."""
    script = Path(__file__).parents[1] / "tests" / "make_tiny_model.py"
    subprocess.run([sys.executable, str(script), str(path)], check=True, capture_output=True)


def ensure_training(backend: Backend, model: Path, minutes: float) -> str:
    """Go on with what broke off, or start a training, as a person would; what was done."""
    with backend.client() as client:
        trainings = TrainingList.model_validate_json(client.get("/v1/trainings").content).trainings
        if any(training.state == "running" for training in trainings):
            return "it runs"
        for training in trainings:
            if training.state in ("interrupted", "failed") and training.promoted is None:
                answer = client.post(f"/v1/trainings/{training.name}/resume")
                return "resumed" if answer.is_success else answer.text
        asked = {"words": ["blob"], "model": str(model), "minutes": minutes}
        answer = client.post("/v1/trainings", json=asked)
        return "started" if answer.is_success else answer.text


def running_child(versions: Path) -> psutil.Process | None:
    """The process that trains now."""
    for run in sorted(versions.glob("*-v*")):
        process = read_process(run)
        if process is not None and process.alive:
            return psutil.Process(process.pid)
    return None


def faults_of_store(folder: Path, accepted: list[Annotation]) -> list[str]:
    """What is lost or corrupt of the corrections."""
    faults = []
    with AnnotationStore(folder) as store:
        for annotation in accepted:
            try:
                if store.get(annotation.id) != annotation:
                    faults.append(f"{annotation.id} has changed")
                store.read(annotation)
            except ClsClipError as error:
                faults.append(error.message)
        for annotation in store.list():  # also those whose answer never came
            try:
                store.read(annotation)
            except ClsClipError as error:
                faults.append(error.message)
    return faults


def faults_of_runs(versions: Path) -> list[str]:
    """Files of trainings that cannot be read."""
    from safetensors import safe_open

    faults = []
    for run in versions.glob("*-v*"):
        for read in (read_state, read_report):
            try:
                read(run)
            except ClsClipError as error:
                faults.append(error.message)
        for file in (*run.glob("*.json"), versions / "active.json"):
            try:
                json.loads(file.read_bytes())
            except ValueError as error:
                faults.append(f"{file}: {error}")
        for file in run.glob("*.safetensors"):
            try:
                with safe_open(file, framework="pt") as opened:
                    for name in opened.keys():  # noqa: SIM118 - no mapping
                        opened.get_tensor(name)
            except Exception as error:  # whatever is wrong with it, is
                faults.append(f"{file}: {error}")
    return faults


def finish(backend: Backend, seconds: float = 600) -> tuple[Training, ...]:
    """Resume what broke off until every training has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with backend.client() as client:
            found = TrainingList.model_validate_json(client.get("/v1/trainings").content).trainings
            if all(t.state not in ("running", "interrupted") for t in found):
                return found
            if not any(t.state == "running" for t in found):
                left = next(t for t in found if t.state == "interrupted")
                client.post(f"/v1/trainings/{left.name}/resume")
        time.sleep(0.5)
    return found


def main() -> int:
    """Print a table; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=0.2, help="Of each training.")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store, versions = root / "store", root / "versions"
        os.environ.update({STORE_VARIABLE: str(store), VERSIONS_VARIABLE: str(versions)})
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        tiny_model(root / "tiny")
        started = time.monotonic()
        backend = Backend()
        acceptance = Acceptance(backend)
        acceptance.start()
        while len(acceptance.accepted) < 5:
            time.sleep(0.1)
        killed: Counter[str] = Counter()
        done: Counter[str] = Counter()
        while killed.total() < args.kills:
            done[ensure_training(backend, root / "tiny", args.minutes)] += 1
            time.sleep(chance.uniform(*PAUSES))
            child = running_child(versions)
            what = chance.choice(("backend", "training", "both")) if child else "backend"
            if child is not None and what in ("training", "both"):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
                killed["training"] += 1
            if what in ("backend", "both"):
                backend.kill()
                killed["backend"] += 1
                backend.start()
        trainings = finish(backend)
        acceptance.stop()
        with backend.client() as client:
            active = VersionList.model_validate_json(client.get("/v1/versions").content).active
        backend.kill()
        lost = faults_of_store(store, acceptance.accepted)
        corrupt = faults_of_runs(versions)
        silent = [
            training.name
            for training in trainings
            if training.state == "running" or (training.state != "done" and not training.reason)
        ]
        rows = {
            "kills of the backend": killed["backend"],
            "kills of a training": killed["training"],
            "corrections accepted (201)": len(acceptance.accepted),
            "corrections without an answer": acceptance.unanswered,
            "corrections lost or corrupt": len(lost),
            "trainings": len(trainings),
            **{f"trainings {state}": count
               for state, count in Counter(each.state for each in trainings).items()},
            "trainings gone on with": done["resumed"],
            "trainings that do not say why they ended": len(silent),
            "corrupt files of trainings": len(corrupt),
            "active in the end": active,
            "minutes": round((time.monotonic() - started) / 60, 1),
        }  # fmt: skip
        width = max(map(len, rows))
        for name, value in rows.items():
            print(f"{name:{width}}  {value}")
        faults = [*lost, *corrupt, *silent]
        unforeseen = [text for text in done if text not in ("it runs", "resumed", "started")]
        for text in (*faults, *unforeseen):
            print(text)
        return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
