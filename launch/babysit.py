"""Takes a run from nothing to its end: bucket, pod, set-up, training, and all again whenever the pod is taken away.

python -m launch.babysit --name=NAME ... --config=configs/X.py[:VARIANT] [--config.key=value] [-- FLAGS]

FLAGS go to train as they are. It prints one line per change, and may be killed and started again at any time: what it
knows, it asks gcloud and the workers. It ends with the run's exit code: 0 done; 2, 3 and 4 what a relaunch can't mend
(imagen_jax/errors.py); anything else a crash, or 5 a full or failing disk, after --max_tries more. The pod is deleted
then, unless --keep. If babysit itself is interrupted or fails, the pod stays, and the last line says so.
"""

import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags as absl_flags

from imagen_jax import cli
from imagen_jax.errors import EXIT_INTERRUPTED, InputError
from launch import flags, gcloud, steps
from launch.package import PAYLOAD, pack
from launch.pod import Pod
from launch.runner import CommandError, Runner, reporting
from launch.states import UNREACHABLE, VM_READY, Action, Kind, back_off_s, next_action

_POD = flags.define_pod()
_TRAIN = flags.define_train()
_REVISION = flags.define_revision()
_MAX_TRIES = absl_flags.DEFINE_integer(
    "max_tries", 5, "Relaunches after crashes, in all.", lower_bound=0, upper_bound=1_000
)
_POLL_S = absl_flags.DEFINE_float("poll_s", 60.0, "Seconds between looks.", lower_bound=1.0, upper_bound=86_400.0)
_KEEP = absl_flags.DEFINE_bool("keep", False, "Keep the pod when the run has ended, which costs as much as training.")
_DRY_RUN = flags.define_dry_run()

_EXIT_GAVE_UP = 1
# An hour, at the default --poll_s: a pod that nobody can reach costs, and does nothing. One that has answered before is
# left to work, as it may be this machine's network that fails.
_MAX_UNANSWERED = 60


def babysit(
    runner: Runner,
    pod: Pod,
    payload: Path,
    command: Sequence[str],
    *,
    max_tries: int,
    poll_s: float = 60.0,
    keep: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    say: Callable[[str], None] | None = None,
) -> int:
    """Loops until the run has ended, and returns its exit code, or 1 where gcloud kept failing.

    Args:
      payload: what `pack` wrote; the same for every pod that this one call sets up.
      command: what follows `python -m` on the workers.
      max_tries: crashes, or failures of gcloud in a row, after which it gives up.
      poll_s: seconds between looks.
      keep: leave the pod at the end.
      sleep, say: instead of waiting and printing, in tests.
    """
    said = ""

    def tell(line: str) -> None:
        nonlocal said
        if line != said:
            line_with_time = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}"
            say(line_with_time) if say else print(line_with_time, flush=True)
        said = line

    stays = f"the pod {pod.name}, if there is one, stays and costs: the same command goes on; {_how_to_delete(pod)}"
    try:
        return _watch(
            runner, pod, payload, command, max_tries=max_tries, poll_s=poll_s, keep=keep, sleep=sleep, tell=tell
        )
    except KeyboardInterrupt:
        tell(f"interrupted; {stays}")
        return EXIT_INTERRUPTED
    except (InputError, CommandError):  # whose own line comes after this one
        tell(stays)
        raise
    except Exception as error:
        traceback.print_exc()
        tell(f"babysit itself failed ({type(error).__name__}); {stays}")
        return _EXIT_GAVE_UP


def _how_to_delete(pod: Pod) -> str:
    return f"python -m launch.delete --name={pod.name} --project={pod.project} --zone={pod.zone} ... deletes it"


def _watch(
    runner: Runner,
    pod: Pod,
    payload: Path,
    command: Sequence[str],
    *,
    max_tries: int,
    poll_s: float,
    keep: bool,
    sleep: Callable[[float], None],
    tell: Callable[[str], None],
) -> int:
    # Crashes; failures of gcloud in a row; of this pod: looks at its workers, and whether they ever answered.
    tries, failures, looks, answered, has_bucket = 0, 0, 0, False, False
    while True:
        try:
            if not has_bucket:
                steps.ensure_bucket(runner, pod)
                has_bucket, failures = True, 0
            seen = steps.observe(runner, pod)
        except CommandError as error:
            if not has_bucket:
                # Without a bucket there may be nothing yet that waits for an end, and the mistake may be the user's.
                failures += 1
                tell(f"{error} ({failures} of {max_tries + 1})")
                if failures > max_tries:
                    raise
                sleep(back_off_s(failures))
                continue
            # A network that is away for an hour is no reason to give up.
            tell(f"{error}: waiting")
            sleep(poll_s)
            continue
        tries = max(tries, seen.tries)
        action = next_action(seen.queued_state, seen.vm_state, seen.exit_code, tries, max_tries=max_tries)
        if seen.vm_state == VM_READY:
            looks, answered = looks + 1, answered or seen.exit_code != UNREACHABLE
            if looks >= _MAX_UNANSWERED and not answered:
                action = Action(Kind.STOP, "no worker could ever be reached by ssh", exit_code=_EXIT_GAVE_UP)
        tell(f"{seen}: {action.why} -> {action.kind.value}")
        if action.kind in (Kind.DONE, Kind.STOP):
            return _end(runner, pod, action, keep=keep, tell=tell)
        try:
            if action.delay_s:
                sleep(action.delay_s)
            _execute(runner, pod, payload, command, action)
            tries = action.tries
            if action.kind is not Kind.WAIT:
                failures = 0
            if action.kind is Kind.CREATE:
                looks, answered = 0, False
        except CommandError as error:
            failures += 1
            tell(f"{error} ({failures} of {max_tries + 1})")
            if failures > max_tries:
                return _end(runner, pod, Action(Kind.STOP, "", exit_code=_EXIT_GAVE_UP), keep=keep, tell=tell)
            sleep(back_off_s(failures))
        if action.kind in (Kind.WAIT, Kind.CREATE, Kind.START):
            sleep(poll_s)


def _execute(runner: Runner, pod: Pod, payload: Path, command: Sequence[str], action: Action) -> None:
    match action.kind:
        case Kind.CREATE:
            steps.create(runner, pod)
        case Kind.DELETE:
            steps.delete(runner, pod)
        case Kind.START:
            steps.set_up(runner, pod, payload)
            # Of a run that ended on one worker, others may hang.
            steps.stop(runner, pod)
            steps.start(runner, pod, command, tries=action.tries)


def _end(runner: Runner, pod: Pod, action: Action, *, keep: bool, tell: Callable[[str], None]) -> int:
    if keep:
        tell(f"the pod stays, and costs; {_how_to_delete(pod)}. Logs: gs://{pod.bucket}/runs/{pod.name}/logs")
    else:
        try:
            steps.delete(runner, pod)
            steps.check_gone(runner, pod)
            tell(f"the pod is deleted. Logs: gs://{pod.bucket}/runs/{pod.name}/logs")
        except CommandError as error:
            tell(f"THE POD MAY STILL BE THERE, and cost: {error}; {_how_to_delete(pod)}")
    return action.exit_code


def _rehearse(runner: Runner, pod: Pod, command: Sequence[str]) -> None:
    """Every command of a run without mishap, once."""
    steps.ensure_bucket(runner, pod)
    steps.create(runner, pod)
    runner.run(gcloud.describe_queued_resource(pod))
    runner.run(gcloud.describe_node(pod))
    runner.run(steps.status_command(pod))
    _execute(runner, pod, Path(tempfile.gettempdir()) / PAYLOAD, command, Action(Kind.START, ""))
    steps.delete(runner, pod)
    steps.check_gone(runner, pod)


@reporting
def main(further: Sequence[str]) -> int:
    """Babysits; `further`: flags for train, as they are."""
    runner, pod = Runner(dry_run=_DRY_RUN.value), _POD()
    command = _TRAIN(pod, further)
    if _DRY_RUN.value:
        _rehearse(runner, pod, command)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        payload = pack(Path(folder), revision=_REVISION.value)
        return babysit(
            runner, pod, payload, command, max_tries=_MAX_TRIES.value, poll_s=_POLL_S.value, keep=_KEEP.value
        )


if __name__ == "__main__":
    cli.run(main, hands_on=True)
