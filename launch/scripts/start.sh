#!/usr/bin/env bash
# Starts `python -m MODULE ARGUMENTS` so that it outlives this ssh. Where one of that name runs already, it does nothing.
# Usage: start.sh NAME WORKDIR TRIES MODULE [ARGUMENTS...]
set -euo pipefail
name=$1 workdir=$2 tries=$3
shift 3
here=$(dirname "$(realpath "$0")")
run=$HOME/imagen_runs/$name
mkdir -p "$run"

# The run inherits this lock and holds it until its last process ends: no process id to go stale, no gap in between.
exec 9>"$run/lock"
if ! flock --nonblock 9; then
  echo "$(hostname): already running"
  exit 0
fi
# Without its bucket a run would take its data for missing, a mistake that nobody relaunches after. This may be tried
# again.
mount=${workdir%/runs/*}
if [[ $mount == /mnt/* ]] && ! mountpoint -q "$mount"; then
  sudo systemctl start "$(systemd-escape --path --suffix=mount "$mount")" || true
  if ! mountpoint -q "$mount"; then
    echo "$(hostname): $mount is not mounted" >&2
    exit 1
  fi
fi
rm -f "$run/exit_code"
echo "$tries" >"$run/tries"

export PYTHONUNBUFFERED=1
# jax finds the pod's other workers by itself.
export IMAGEN_COORDINATOR=auto
# On the bucket, so that a recreated pod need not compile again.
export JAX_COMPILATION_CACHE_DIR=${workdir%/runs/*}/xla_cache
cd "$HOME/imagen_jax"
nohup setsid bash "$here/supervise.sh" "$run" "$workdir" \
  "$HOME/imagen_venv/bin/python" -m "$@" </dev/null >>"$run/log" 2>&1 &
echo $! >"$run/pid" # setsid makes it the leader of a process group of this number
echo "$(hostname): started"
