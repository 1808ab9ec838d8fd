# What the stubs share. Each stub is named for the tool whose command line it takes, understands of it what this
# library may use, refuses the rest as the tool would, and starts the program the way the tool does: in another
# directory, environment and namespaces. The only container is called "box".
#
# MITOGEN_STUB_LOG names a file that gets the command line, one word a line. MITOGEN_STUB_PATH is the PATH of the
# container.

tool=${0##*/}

if [ -n "${MITOGEN_STUB_LOG:-}" ]; then
    for word in "$tool" "$@"; do
        printf '%s\n' "$word"
    done >"$MITOGEN_STUB_LOG"
fi

fail() {  # status, text
    status=$1
    shift
    printf '%s\n' "$*" >&2
    exit "$status"
}

unknown_flag() {
    fail 125 "$tool: unknown flag: $1"
}

no_terminal() {  # real tools would put a terminal of their own between
    for fd in 0 1 2; do
        if [ -t $fd ]; then
            fail 70 "stub: descriptor $fd is a terminal"
        fi
    done
}

# As most tools do, flags with their values may be written as one word or as two.
flag_value() {  # flag, next word
    case $1 in
        --*=*) value=${1#*=} ;;
        *) value=$2; took=1 ;;
    esac
}

# Run the command in namespaces of its own, if that is allowed here. With a first argument "init" it is the first
# process there, as in a new container.
enter() {  # kind, user, program, arguments
    kind=$1
    user=$2
    shift 2
    [ $# -gt 0 ] || fail 125 "$tool: no command"
    cd /
    # The last two are for the tests: what to look for when something is left behind, and which core to run.
    set -- env -i PATH="${MITOGEN_STUB_PATH:-/usr/local/bin:/usr/bin:/bin}" HOME=/ STUB_TOOL="$tool" STUB_USER="$user" \
        MITOGEN_TEST_MARK="$MITOGEN_TEST_MARK" MITOGEN_CORE="$MITOGEN_CORE" "$@"
    if ! unshare --mount --uts --ipc --pid --fork true 2>/dev/null; then
        exec "$@"
    fi
    [ "$kind" = init ] || set -- sh -c '"$@"; exit $?' sh "$@"
    exec unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc "$@"
}
