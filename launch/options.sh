# Sourced by every script of this folder: --name=value options, --dry_run, --help, and one way to run a command.
#
#   name=- zone=a; option name HELP; option zone HELP     declares options, "-" for one that must be given; the value is the default
#   parse "$@"                                            sets the variables; words after -- stay in REST
#   run COMMAND ...                                       prints the command; executes it unless --dry_run

set -euo pipefail
# shellcheck disable=SC2034  # for the scripts that source this
REPOSITORY="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
DRY_RUN=false
REST=()
_names=()
declare -A _help

fail() {
    echo "error: $*" >&2
    exit 2
}

option() {
    _names+=("$1")
    _help[$1]=$2
}

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" | grep -v '^shellcheck'
    local _name
    for _name in "${_names[@]}"; do
        if [ "${!_name}" = - ]; then printf '  --%s (required): %s\n' "$_name" "${_help[$_name]}"; else printf '  --%s=%s: %s\n' "$_name" "${!_name}" "${_help[$_name]}"; fi
    done
    echo "  --dry_run: print the commands, run none"
}

parse() {
    local _word _name
    while [ $# -gt 0 ]; do
        _word=$1
        shift
        case "$_word" in
            --help) usage; exit 0 ;;
            --dry_run) DRY_RUN=true; continue ;;
            --) REST=("$@"); break ;;
            --*=*) ;;
            *) fail "options must look like --name=value, got '$_word'; see --help" ;;
        esac
        _name=${_word%%=*}
        _name=${_name#--}
        if [ -z "${_help[$_name]:-}" ]; then fail "options must be among ${_names[*]}, got '$_name'"; fi
        printf -v "$_name" '%s' "${_word#*=}"
    done
    for _name in "${_names[@]}"; do
        if [ "${!_name}" = - ]; then fail "--$_name must be given: ${_help[$_name]}"; fi
    done
}

run() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    if ! $DRY_RUN; then "$@"; fi
}

# The words of REST as one string that a remote shell reads as the same words.
quoted_rest() {
    if [ ${#REST[@]} -gt 0 ]; then printf ' %q' "${REST[@]}"; fi
}
