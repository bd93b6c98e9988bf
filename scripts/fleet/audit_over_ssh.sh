#!/usr/bin/env bash
# Audit hosts over ssh, several at a time, or heal them and audit them afterwards.
# RESULTS/HOST.jsonl gets what was found on each host, or why it did not answer.
#
#   audit_over_ssh.sh [OPTION...] HOSTS RESULTS FOLDER...
#
#   audit_over_ssh.sh hosts.txt audits /opt/conda '/home/*/.conda'   the host expands quoted patterns
#   audit_over_ssh.sh --heal hosts.txt audits /opt/conda             say what --apply would change
#   audit_over_ssh.sh --apply --sudo hosts.txt audits /opt/conda     heal
#   audit_over_ssh.sh --undo --sudo hosts.txt audits /opt/conda      take the healing back
#
#   --at-a-time N  how many hosts at a time (default: 16)
#   --heal         a dry run of heal_numpy.py: it changes nothing
#   --apply        heal with heal_numpy.py
#   --undo         give every file its old bytes again
#   --dry-run      with --apply or --undo: change nothing
#   --sudo         work as root on the hosts, by sudo -n
#
# --apply and --undo begin with the first host of the file: it is the canary. Then they go on in
# parts of N hosts. They stop after a part with a host that failed or did not answer. The same
# command can be given again: it completes what was begun.
#
# HOSTS is a file with a host, or user@host, in each line. Nothing is left on the hosts but what
# healing changed. ssh asks nothing, so keys and known hosts have to be there. ~/.ssh/config says
# how each host is reached. AUDIT_SECONDS (default: 600) is the longest time for one host.
#
# exit code: 0 all hosts answered, 1 some did not or failed and are named, 2 wrong use
set -uo pipefail

here=$(dirname "$0")
# a host that takes the call and says nothing; one that goes silent
ssh=(ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15 -o ServerAliveCountMax=4)
# one that takes too long, as on a large file server
seconds=${AUDIT_SECONDS:-600}
patience=(timeout --kill-after=10 "$seconds")
# one that sends without an end: a thousand numpys are one megabyte
megabytes=256

help() { sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; }

wrong_use() {
    printf 'audit_over_ssh.sh: %s\n' "$1" >&2
    help | sed -n '4p' >&2
    echo 'audit_over_ssh.sh --help says more' >&2
    exit 2
}

at_a_time=16 action='' sudo='' options=()
choose() {
    [[ -z $action ]] || wrong_use "give one of $action and $1"
    action=$1
}
while (($#)); do
    case $1 in
        --at-a-time)
            [[ ${2-} =~ ^[1-9][0-9]{0,3}$ ]] || wrong_use "--at-a-time needs a number from 1 to 9999, found: ${2-}"
            at_a_time=$2
            shift
            ;;
        --heal) choose "$1" ;;
        --apply | --undo) choose "$1"; options+=("$1") ;;
        --dry-run) options+=("$1") ;;
        --sudo) sudo='sudo -n ' ;;
        --help | -h) help; exit ;;
        --) shift; break ;;
        -*) wrong_use "no such option: $1" ;;
        *) break ;;
    esac
    shift
done
(($# >= 3)) || wrong_use 'give a hosts file, a folder for the results, and a folder to look at'
[[ -r $1 && ! -d $1 ]] || wrong_use "the hosts file cannot be read: $1"
[[ -n $action || ${#options[@]} -eq 0 ]] || wrong_use '--dry-run goes with --apply or --undo'
hosts_file=$1 results=$2
shift 2

partial=$(mktemp -d) || exit 2
trap 'rm -rf "$partial"' EXIT
# what a host runs: the audit alone, or one file that has both scripts
program=$here/../audit_numpy.py arguments=(--json "$@") prepare=()
if [[ -n $action ]]; then
    program=$partial/on_host.py arguments=("${options[@]}" -- "$@") prepare=(--on-host "$program")
fi
python3 -B "$here/prepare_run.py" "${prepare[@]}" -- "$hosts_file" "$results" >"$partial/hosts" || exit 2
mapfile -t hosts <"$partial/hosts"

# RHEL 8 has a Python of its own even where nobody installed one
# shellcheck disable=SC2016  # for the host's shell
start="exec $sudo"'"$(command -v python3 || echo /usr/libexec/platform-python)" -I - "$@"'
command=$(printf '%q ' sh -c "$start" sh "${arguments[@]}")

fail() {
    local host=$1 why=$2
    # a host may send what steers the terminal
    printf '%s %s\n' "$host" "$why" | tr -d '\r' | cat -v >&2
    touch "$partial/failed"
}

# Why a host did not answer, from its lines; nothing if it did. A name cannot look like the end:
# JSON has backslashes before the quotation marks of a name.
why_not() {
    local code=$1 host=$2 why
    grep -q '"type": "end"' "$partial/$host.jsonl" && return
    ((code == 124 || code == 137)) && echo "no end after $seconds seconds" >>"$partial/$host.err"
    if [[ -n $(find "$partial/$host.jsonl" "$partial/$host.err" -size +$((megabytes - 1))M) ]]; then
        echo "it sent more than $megabytes MB"
        return
    fi
    why=$(tail -n 3 "$partial/$host.err")
    echo "${why:-exit code $code, and the last line of the audit is missing}"
}

ask_host() {
    local host=$1 why
    (
        trap '' XFSZ
        ulimit -f $((megabytes * 1024))
        exec "${patience[@]}" "${ssh[@]}" -- "$host" "$command"
    ) <"$program" >"$partial/$host.jsonl" 2>"$partial/$host.err"
    why=$(why_not $? "$host")
    if [[ -n $why ]]; then
        # what it said until then, perhaps half a line, is kept
        python3 -c 'import json, sys; print("\n" + json.dumps({"failed": sys.argv[1]}))' "$why" \
            >>"$partial/$host.jsonl"
        fail "$host" "did not answer: $why"
    elif grep -q '"summary": {[^}]*"failed"' "$partial/$host.jsonl"; then
        fail "$host" 'failed: heal_numpy.py could not heal all; the summary has the reasons'
    elif grep -q '^{"failed": ' "$partial/$host.jsonl"; then
        fail "$host" "failed: $(tail -n 3 "$partial/$host.err")"
    fi
    mv "$partial/$host.jsonl" "$results/$host.jsonl"
}

ask_hosts() {
    local host
    for host; do
        case $host in
            -* | */*) fail "$host" 'is no name of a host'; continue ;;
        esac
        while (($(jobs -rp | wc -l) >= at_a_time)); do wait -n; done
        ask_host "$host" &
    done
    wait
}

if [[ ${options[*]-} != --apply && ${options[*]-} != --undo ]]; then
    ask_hosts "${hosts[@]}"
    [[ ! -e $partial/failed ]]
    exit
fi
done_hosts=0 part=1
while ((done_hosts < ${#hosts[@]})); do
    ask_hosts "${hosts[@]:done_hosts:part}"
    done_hosts=$((done_hosts + part < ${#hosts[@]} ? done_hosts + part : ${#hosts[@]}))
    printf '%s: %d of %d hosts\n' "${action#--}" "$done_hosts" "${#hosts[@]}" >&2
    if [[ -e $partial/failed ]]; then
        ((done_hosts == ${#hosts[@]})) || echo "stopped: $((${#hosts[@]} - done_hosts)) hosts were not asked" >&2
        exit 1
    fi
    part=$at_a_time
done
