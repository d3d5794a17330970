#!/usr/bin/env bash
# Says in one line of JSON how a run stands on this worker: running, or the exit code and how long ago (s).
# Usage: status.sh NAME
set -euo pipefail
run=$HOME/imagen_runs/$1

say() {
  printf '{"worker": "%s", "state": "%s", "exit_code": %d, "age_s": %d, "tries": %d}\n' \
    "$(hostname)" "$1" "$2" "$3" "$(cat "$run/tries" 2>/dev/null || echo 0)"
}

if [[ ! -f $run/tries ]]; then
  say absent 0 0
elif ! flock --nonblock "$run/lock" true; then
  say running 0 0
elif [[ -f $run/exit_code ]]; then
  say exited "$(cat "$run/exit_code")" "$(($(date +%s) - $(stat -c %Y "$run/exit_code")))"
else
  # Killed with what should have noted its end: the VM was restarted.
  say exited 137 "$(($(date +%s) - $(stat -c %Y "$run/tries")))"
fi
