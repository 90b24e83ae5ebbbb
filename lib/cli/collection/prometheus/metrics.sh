#!/usr/bin/env bash
# Writes what this host's arm64 KVM offers as metrics for the textfile collector of node_exporter, with kvm-arm64 @VERSION@. The file
# is replaced whole, so that no scrape sees a part; if the probe fails, it keeps its date, and an alert of kvm-arm64.rules.yml fires.
#
# KVM_ARM64           how to call kvm-arm64, by default "kvm-arm64"
# KVM_ARM64_TEXTFILE  the directory of node_exporter's option --collector.textfile.directory
# KVM_ARM64_SIMULATE  for trials without arm64 KVM: a name of `kvm-arm64 hosts`, or a report, to simulate
set -euo pipefail

read -ra command <<< "${KVM_ARM64:-kvm-arm64}"
textfile=${KVM_ARM64_TEXTFILE:-/var/lib/prometheus/node-exporter}
backend=(--backend kernel)
if [[ -n ${KVM_ARM64_SIMULATE:-} ]]; then backend=(--simulate "$KVM_ARM64_SIMULATE"); fi

draft=$(mktemp -d)
trap 'rm -rf "$draft"' EXIT
"${command[@]}" probe "${backend[@]}" --digest -o "$draft/report.json"
"${command[@]}" export "$draft/report.json" --to prometheus -o "$textfile/kvm-arm64.prom"
