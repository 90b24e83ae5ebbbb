#!/usr/bin/env bash
# Collects a fleet from reports and rows on a shared disk, with kvm-arm64 @VERSION@: a Slurm job array summarises shards of them, and
# this program merges and analyses the parts.
#
#   ./collect.sh DIRECTORY...       directories of reports or rows (*.json), searched at any depth, such as: rows reports
#
# Run it in a directory that all nodes share. It writes all.json, with every host and class, and fleet.html. Shards whose task failed
# or was killed are submitted again. A host that is not there keeps its last row in all.json; to forget hosts, delete that file.
# Slurm's own variables choose where the tasks run: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT …
#
# KVM_ARM64         how to call kvm-arm64, here and on the nodes, by default "kvm-arm64"
# KVM_ARM64_SHARDS  the number of shards, by default one for each 2,000 files
# KVM_ARM64_TRIES   how often a shard is tried, by default 3
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fail() {
  echo "collect.sh: $1" >&2
  exit 1
}

[[ $# -gt 0 ]] || fail "expected directories of reports or rows"
read -ra command <<< "${KVM_ARM64:-kvm-arm64}"
work=$(mktemp -d "$PWD/.collect.XXXXXX")
mkdir "$work/parts" "$work/logs"

# The shards of a repeated task hold the same files, whatever arrives meanwhile. Hidden files are drafts.
find -- "$@" -name '.*' ! -name . ! -name .. -prune -o -type f -name '*.json' -print0 |
  xargs -r -0 realpath -s | LC_ALL=C sort -u > "$work/files"
files=$(wc -l < "$work/files")
[[ $files -gt 0 ]] || fail "no *.json in $*"
shards=${KVM_ARM64_SHARDS:-$(((files + 1999) / 2000))}
if [[ $shards -gt $files ]]; then shards=$files; fi

missing() {
  local shard
  for ((shard = 1; shard <= shards; shard++)); do
    [[ -e $work/parts/$shard.json ]] || echo "$shard"
  done | paste -sd,
}

tries=${KVM_ARM64_TRIES:-3}
for ((try = 1; try <= tries; try++)); do
  left=$(missing)
  [[ -n $left ]] || break
  echo "try $try: $files files in $shards shards, to do: $left"
  sbatch --quiet --wait --array="$left" --output="$work/logs/%a.$try" "$here/shard.sbatch" "$work" "$shards" ||
    echo "try $try: some tasks failed"
done
left=$(missing)
[[ -z $left ]] || fail "shards $left failed (tries: $tries); their output is in $work/logs"

known=()
if [[ -e all.json ]]; then known=(all.json); fi
"${command[@]}" fleet merge "${known[@]}" "$work"/parts/*.json -o all.json
rm -rf "$work"

status=0
"${command[@]}" fleet all.json --html fleet.html || status=$?
unread=$(sed -n 's/^{"fault":\(.*\)}$/\1/p' all.json | paste -sd' ')
if [[ -n $unread ]]; then echo "could not be read: $unread" >&2; fi
exit "$status"
