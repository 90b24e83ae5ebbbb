#!/usr/bin/env bash
# Collects the rows and reports of the pods of kvm-arm64.yaml, with kvm-arm64 @VERSION@, and writes objects for Node Feature Discovery.
#
#   ./collect.sh             writes all.json, fleet.html and objects.json in this directory
#   kubectl apply -f objects.json
#
# Every pod printed a row; one pod of each class that is not in all.json yet sends its report. objects.json holds a NodeFeature for
# each node and a NodeFeatureGroup for each class. A node that is not there keeps its last row; to forget nodes, delete all.json.
# kubectl uses its current context.
#
# KVM_ARM64  how to call kvm-arm64, by default "kvm-arm64"
set -euo pipefail
read -ra command <<< "${KVM_ARM64:-kvm-arm64}"
pods=(--namespace kvm-arm64 --selector app.kubernetes.io/name=kvm-arm64)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/reports"

# A line "NODE POD" for each pod that runs.
kubectl get pods "${pods[@]}" --field-selector status.phase=Running \
  -o 'jsonpath={range .items[*]}{.spec.nodeName}{" "}{.metadata.name}{"\n"}{end}' > "$work/pods"
[[ -s $work/pods ]] || { echo "collect.sh: no pod of kvm-arm64.yaml runs" >&2; exit 1; }

failed=0
while read -r node pod; do
  # The last row: the pod may have probed several times. What it prints to stderr is in the log too.
  row=$(kubectl logs --namespace kvm-arm64 "$pod" < /dev/null | grep '^{"name":' | tail -n 1) || row=
  if [[ -n $row ]]; then
    echo "$row" >> "$work/rows"
  else
    echo "collect.sh: $node: pod $pod printed no row" >&2
    failed=1
  fi
done < "$work/pods"
[[ -s $work/rows ]] || exit 1

known=()
if [[ -e all.json ]]; then known=(all.json); fi
"${command[@]}" fleet missing "${known[@]}" "$work/rows" > "$work/missing"
while read -r node; do
  pod=$(awk -v node="$node" '$1 == node { print $2; exit }' "$work/pods")
  if [[ -z $pod ]]; then
    echo "collect.sh: $node: no pod runs there, and its class has no report" >&2
    failed=1
  elif kubectl exec --namespace kvm-arm64 "$pod" -- cat /run/kvm-arm64/report.json < /dev/null > "$work/report"; then
    mv "$work/report" "$work/reports/$node.json"
  else
    failed=1
  fi
done < "$work/missing"

reports=()
if [[ -n $(ls "$work/reports") ]]; then reports=("$work/reports"); fi
"${command[@]}" fleet merge "${known[@]}" "${reports[@]}" "$work/rows" -o all.json
# A class without a report is no reason to leave out the others.
"${command[@]}" fleet all.json --html fleet.html || failed=1
"${command[@]}" export all.json --to nfd-objects -o objects.json
exit "$failed"
