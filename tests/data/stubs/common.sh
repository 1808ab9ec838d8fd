# What the stubs share. Each stub is named for the tool whose command line it takes, understands of it what this
# library may use, refuses the rest as the tool would, and starts the program the way the tool does: in another
# directory and environment. The only container is called "box".
#
# MITOGEN_STUB_LOG names a file that gets the command line, one word a line.

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

enter() {  # user, program, arguments
    user=$1
    shift
    [ $# -gt 0 ] || fail 125 "$tool: no command"
    cd /
    # The last two are for the tests: what to look for when something is left behind, and which core to run.
    exec env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/ STUB_TOOL="$tool" STUB_USER="$user" \
        MITOGEN_TEST_MARK="$MITOGEN_TEST_MARK" MITOGEN_CORE="$MITOGEN_CORE" "$@"
}
