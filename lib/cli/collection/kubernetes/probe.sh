#!/usr/bin/env bash
# Probes the node that this container runs on, with kvm-arm64 @VERSION@, when it starts and then at intervals: prints the row, keeps
# the report for collect.sh, and writes the feature file that nfd-worker turns into labels. The container ends if a probe fails.
#
# NODE_NAME            the name of the node
# KVM_ARM64            how to call kvm-arm64, by default "kvm-arm64"
# KVM_ARM64_INTERVAL   seconds between two probes, by default a day; 0 probes once
# KVM_ARM64_FEATURES   the directory of feature files, by default /features.d
# KVM_ARM64_REPORT     where to keep the report, by default /run/kvm-arm64/report.json
# KVM_ARM64_SIMULATE   for trials without arm64 KVM: a name of `kvm-arm64 hosts`, or a report, to simulate
set -euo pipefail
# As the first process of a container it would ignore the signal.
trap 'exit 0' TERM

: "${NODE_NAME:?is not set}"
read -ra command <<< "${KVM_ARM64:-kvm-arm64}"
interval=${KVM_ARM64_INTERVAL:-86400}
report=${KVM_ARM64_REPORT:-/run/kvm-arm64/report.json}
backend=(--backend kernel)
if [[ -n ${KVM_ARM64_SIMULATE:-} ]]; then backend=(--simulate "$KVM_ARM64_SIMULATE"); fi

while true; do
  "${command[@]}" probe "${backend[@]}" --digest --name "$NODE_NAME" -o "$report"
  # Labels outlast one probe that is late, and expire when the node is probed no more.
  "${command[@]}" export "$report" --to nfd --expire "$((interval * 2 / 3600 + 24))" \
    -o "${KVM_ARM64_FEATURES:-/features.d}/kvm-arm64"
  if [[ $interval -eq 0 ]]; then break; fi
  # A signal does not interrupt a program in the foreground.
  sleep "$interval" &
  wait $!
done
