# shellcheck shell=bash
# Shared by the scripts beside it: messages, a place to work in, and a Keyward
# server that lives exactly as long as the script that started it.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS=$ROOT/.tools

say() { printf '    %s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The virtual environment's Python, with schemathesis in it. It is called by
# its own name, never through an entry script: those hold an absolute path.
PYTHON=$TOOLS/venv/bin/python

need_tool() {
    [[ -x $1 ]] || command -v "$1" >/dev/null 2>&1 ||
        die "$1 is missing; scripts/install-test-tools installs it"
}

# --- The server under test -------------------------------------------------

WORK=
SERVER_PID=
BASE_URL=
METRICS_URL=

# Called first by every script that starts a server. Whatever happens
# afterwards, the server is ended and the directory removed.
begin_work() {
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/keyward-check.XXXXXXXX")
    trap end_work EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

end_work() {
    local status=$?
    trap - EXIT
    if [[ -n $SERVER_PID ]]; then
        kill -KILL "$SERVER_PID" 2>/dev/null || true
        wait "$SERVER_PID" 2>/dev/null || true
        if ((status != 0)); then
            printf '\nThe last lines of the server'\''s log:\n' >&2
            tail -n 40 "$WORK/server.log" >&2 || true
        fi
    fi
    if ((status != 0)) && [[ -n ${KEEP_WORK:-} ]]; then
        printf 'Left behind, as KEEP_WORK asks: %s\n' "$WORK" >&2
    else
        rm -rf "$WORK"
    fi
    exit "$status"
}

keyward_bin() {
    local bin=${KEYWARD_BIN:-${CARGO_TARGET_DIR:-$ROOT/target}/release/keyward}
    [[ -x $bin ]] || die "no binary at $bin; build it (make build), or name another one in KEYWARD_BIN"
    (cd "$(dirname "$bin")" && printf '%s/%s' "$(pwd)" "$(basename "$bin")")
}

# Becomes Keyward, in the working directory, with none of the caller's settings:
# a developer's DATABASE_URL must not be what the check writes to. Settings for
# it come first, as NAME=value, then its arguments. To be called in a subshell,
# or in the background, whose process it takes over.
exec_keyward() {
    local settings=()
    while [[ ${1:-} == *=* && ${1:-} != -* ]]; do
        settings+=("$1")
        shift
    done
    cd "$WORK" || exit
    exec env -i PATH="$PATH" HOME="$WORK" TMPDIR="$WORK" RUST_BACKTRACE=1 \
        ${settings[@]+"${settings[@]}"} "$KEYWARD" "$@"
}

# start_server [NAME=value...]: a server and a fresh SQLite file. The system
# chooses the ports while the server listens: a port looked up beforehand may be
# somebody else's by then.
# Sets SERVER_PID, BASE_URL and METRICS_URL, and returns once it answers.
start_server() {
    local deadline=$((SECONDS + 20))
    BASE_URL='' METRICS_URL=''

    exec_keyward KEYWARD_LOG=info KEYWARD_LOG_FORMAT=json KEYWARD_SHUTDOWN_GRACE=5s "$@" \
        serve --database-url "sqlite://$WORK/keyward.db" \
        --host 127.0.0.1 --port 0 --metrics-host 127.0.0.1 --metrics-port 0 \
        </dev/null >"$WORK/server.log" 2>&1 &
    SERVER_PID=$!

    until [[ -n $BASE_URL && -n $METRICS_URL ]] &&
        curl -sf -o /dev/null --max-time 2 "$BASE_URL/health" &&
        curl -sf -o /dev/null --max-time 2 "$METRICS_URL/metrics"; do
        kill -0 "$SERVER_PID" 2>/dev/null || die "the server ended before it answered"
        ((SECONDS < deadline)) || die "the server did not answer within 20 s"
        sleep 0.1
        BASE_URL=$(sed -n 's/.*"message":"serving".*"url":"\([^"]*\)".*/\1/p' "$WORK/server.log")
        METRICS_URL=$(sed -n 's/.*"message":"serving".*"metrics":"\([^"]*\)".*/http:\/\/\1/p' "$WORK/server.log")
    done
    say "serving on $BASE_URL, metrics on $METRICS_URL (process $SERVER_PID)"
}

# Asks the server to end, and expects it to end well: exit status 0 within its
# grace, and no panic behind it.
stop_server() {
    local pid=$SERVER_PID status=0 deadline=$((SECONDS + 15))
    kill -0 "$pid" 2>/dev/null || die "the server had ended by itself"
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do
        ((SECONDS < deadline)) || die "the server did not end within 15 s of SIGTERM"
        sleep 0.1
    done
    wait "$pid" || status=$?
    ((status == 0)) || die "the server ended with status $status after SIGTERM"
    if grep -q 'panicked at\|"message":"panicked"' "$WORK/server.log"; then
        grep -n 'panicked at\|"message":"panicked"' "$WORK/server.log" >&2
        die "the server panicked"
    fi
    SERVER_PID=
}

# --- The simple API ---------------------------------------------------------

# api METHOD PATH [JSON [curl options...]]: prints the answer's body; fails, and
# shows the answer, on a status of 400 or above.
api() {
    local method=$1 path=$2 body=${3:-} status
    shift $(($# < 3 ? $# : 3))
    local args=(-sS --max-time 20 -X "$method" -o "$WORK/answer" -w '%{http_code}')
    [[ -n $body ]] && args+=(-H 'content-type: application/json' --data-binary "$body")
    status=$(curl "${args[@]}" "$@" "$BASE_URL$path")
    if ((status >= 400)); then
        cat "$WORK/answer" >&2
        printf '\n' >&2
        die "$method $path answered $status"
    fi
    cat "$WORK/answer"
}

# field NAME: that member of the JSON object on standard input.
field() { "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# A password that no list knows, new in every run.
random_password() {
    "$PYTHON" -c 'import secrets; print("kw-" + secrets.token_urlsafe(24))'
}
