#!/usr/bin/env bash
# Runs a command, copies its log to the bucket and notes its exit code. start.sh starts this.
# Usage: supervise.sh RUN_FOLDER WORKDIR COMMAND...
set -uo pipefail
run=$1 workdir=$2
shift 2

# A VM that is taken away sends SIGTERM to everything. bash runs a trap only after the command has ended, so this waits
# for its checkpoint; an empty trap ('') would be inherited, and the command never hear of it.
trap : TERM INT
echo "$(date -Is) $(hostname) starts: $*"
"$@"
code=$?
echo "$(date -Is) $(hostname) ended with exit code $code"
# What looks like a mistake (2) or like damage (3) where the bucket has gone is the bucket's failure (5), which passes.
mount=${workdir%/runs/*}
if [[ ($code == 2 || $code == 3) && $mount == /mnt/* ]] && ! timeout 60 ls "$mount/runs" >/dev/null 2>&1; then
  code=5
  echo "$(date -Is) $(hostname): $mount can't be read, so that this counts as exit code 5"
fi

# The log first: whoever sees the exit code may delete the VM.
timeout 60 mkdir -p "$workdir/logs" && timeout 60 cp "$run/log" "$workdir/logs/$(hostname).log"
echo "$code" >"$run/exit_code.partial"
mv "$run/exit_code.partial" "$run/exit_code"
