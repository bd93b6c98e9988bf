#!/usr/bin/env bash
# Audit hosts over ssh, several at a time. RESULTS/HOST.jsonl gets what was found on each, or why it did not answer.
#
#   audit_over_ssh.sh HOSTS RESULTS FOLDER...
#   audit_over_ssh.sh hosts.txt audits /opt/conda '/home/*/.conda'    quoted patterns are expanded on the host
#
# HOSTS is a file with a host, or user@host, in each line. Nothing is left on them: the audit goes in by standard input.
# ssh asks nothing, so keys and known hosts have to be there; how each host is reached, ~/.ssh/config says.
# exit code: 0 all hosts answered, 1 some did not and are named, 2 wrong use
set -uo pipefail

at_a_time=16
# a host that takes the call and says nothing; one that goes silent; one that takes too long, as on a large file server
ssh=(ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15 -o ServerAliveCountMax=4)
patience=(timeout --kill-after=10 "${AUDIT_SECONDS:-600}")

audit=$(dirname "$0")/../audit_numpy.py
# RHEL 8 has a Python of its own even where nobody installed one
# shellcheck disable=SC2016  # for the host's shell
start='exec "$(command -v python3 || echo /usr/libexec/platform-python)" -I - "$@"'

if (($# < 3)) || ! [[ -r $1 ]]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
hosts=$1 results=$2
shift 2
mkdir -p "$results" || exit 2
partial=$(mktemp -d) || exit 2
trap 'rm -rf "$partial"' EXIT

audit_host() {
    local host=$1 code why
    shift
    "${patience[@]}" "${ssh[@]}" -- "$host" "$(printf '%q ' sh -c "$start" sh --json "$@")" \
        <"$audit" >"$partial/$host.jsonl" 2>"$partial/$host.err"
    code=$?
    # 1 says that something is affected; 2, with a line for each, that the host has none of the folders
    if ((code > 2)) || { ((code == 2)) && ! [[ -s $partial/$host.jsonl ]]; }; then
        ((code == 124)) && echo "no end after ${AUDIT_SECONDS:-600} seconds" >>"$partial/$host.err"
        why=$(tail -n 3 "$partial/$host.err")
        # what it said until then, perhaps half a line, is kept
        python3 -c 'import json, sys; print("\n" + json.dumps({"failed": sys.argv[1]}))' "${why:-exit code $code}" >>"$partial/$host.jsonl"
        printf '%s did not answer: %s\n' "$host" "${why:-exit code $code}" >&2
        touch "$partial/failed"
    fi
    mv "$partial/$host.jsonl" "$results/$host.jsonl"
}

while read -r host _; do
    case $host in
        '' | '#'*) continue ;;
        -* | */*) echo "no name of a host: $host" >&2; touch "$partial/failed"; continue ;;
    esac
    while (($(jobs -rp | wc -l) >= at_a_time)); do wait -n; done
    audit_host "$host" "$@" &
done <"$hosts"
wait
[[ ! -e $partial/failed ]]
