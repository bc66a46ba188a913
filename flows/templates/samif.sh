#!/bin/sh
# Written by samif; commit it with dvc.yaml, whose stages start with it. Runs the `samif` on PATH, else the one that is
# installed beside the `dvc` that runs the stage, whose environment need not be activated.
if command -v samif >/dev/null 2>&1; then
  exec samif "$@"
fi
pid=$PPID
while [ "${pid:-0}" -gt 1 ]; do
  if [ -r "/proc/$pid/cmdline" ]; then
    program=$(tr '\0' '\n' <"/proc/$pid/cmdline" | head -n 1)
    parent=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status")
  else # no /proc, as on macOS
    program=$(ps -o command= -p "$pid")
    program=${program%% *}
    parent=$(ps -o ppid= -p "$pid" | tr -d ' ')
  fi
  case $program in
  */*) [ -x "${program%/*}/samif" ] && exec "${program%/*}/samif" "$@" ;;
  esac
  pid=$parent
done
echo "samif is neither on PATH nor installed beside dvc: activate the environment that samif is installed in" >&2
exit 127
