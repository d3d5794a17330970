#!/usr/bin/env bash
# Ends what runs under a name: SIGTERM, at which training writes a checkpoint, and after two minutes SIGKILL.
# Usage: stop.sh NAME
set -euo pipefail
run=$HOME/imagen_runs/$1
[[ -f $run/pid ]] || exit 0

running() { ! flock --nonblock "$run/lock" true; }

if running; then
  kill -TERM -- "-$(cat "$run/pid")" || true
  flock --timeout 120 "$run/lock" true || kill -KILL -- "-$(cat "$run/pid")" || true
  flock --timeout 20 "$run/lock" true
  echo "$(hostname): stopped"
fi
