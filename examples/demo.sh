#!/usr/bin/env bash
# The whole story on one machine, in half a minute: a relay, a handle, an agent that reads
# examples/hello.yaml as an instance reads its user data, a container, its signal, and what `wait`
# says. Run it with `make demo`. Everything that it starts or makes is gone when it ends.
#
#   examples/demo.sh DIRECTORY-OF-THE-PROGRAMS

set -euo pipefail

say() { echo "demo: $*" >&2; }
die() { say "$*"; exit 1; }
heading() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

programs=$(realpath "${1:?usage: examples/demo.sh DIRECTORY-OF-THE-PROGRAMS}")
source_tree=$(realpath "$(dirname "$0")/..")
document=$source_tree/examples/hello.yaml
for program in heliograph-agent heliograph-server; do
    [ -x "$programs/$program" ] || die "$programs/$program does not exist: run make build"
done
[ -t 1 ] || heading() { printf '\n== %s\n' "$*"; }

as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo); fi

# --- cleaning up, whatever happens ---------------------------------------------------------------

directory=$(mktemp -d)
instance=demo
# Held open, it keeps an engine of our own alive. No other child may hold it.
exec {keep}>/dev/null
relay_process="" engine_process="" socket="" made_image=""

clean_up() {
    local status=$?
    trap - EXIT
    if [ -n "$socket" ]; then remove_containers; fi
    if [ -n "$made_image" ]; then engine --output /dev/null --request DELETE "http://engine/v1.40/images/$made_image?force=true" || true; fi
    if [ -n "$relay_process" ]; then kill "$relay_process" 2>/dev/null && wait "$relay_process" 2>/dev/null || true; fi
    stop_engine
    rm -rf "$directory"
    if [ "$status" != 0 ]; then say "it did not work; the lines above say why"; fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# --- the engine ----------------------------------------------------------------------------------

engine() { curl --silent --fail --max-time 60 --unix-socket "$socket" "$@"; }

answers() { [ -S "$1" ] && curl --silent --fail --max-time 3 --output /dev/null --unix-socket "$1" http://engine/_ping 2>/dev/null; }

ours() { # FILTER: ids of containers with that label
    engine --get --data-urlencode all=true --data-urlencode "filters={\"label\":[\"$1\"]}" \
        http://engine/v1.40/containers/json | jq --raw-output '.[].Id'
}

remove_containers() {
    local identifier
    for identifier in $(ours "io.heliograph.instance=$instance"); do
        engine --output /dev/null --request DELETE "http://engine/v1.40/containers/$identifier?force=true&v=true" || true
    done
}

# An engine that runs already is used, unless an agent of this very machine uses it: the demo's
# would take its container for one of a former instance.
use_running_engine() {
    local candidate
    for candidate in "${DOCKER_HOST#unix://}" /var/run/docker.sock /run/podman/podman.sock "${XDG_RUNTIME_DIR:-/nowhere}/podman/podman.sock"; do
        [ -n "$candidate" ] && answers "$candidate" || continue
        socket=$candidate
        if [ -z "$(ours io.heliograph.agent=1)" ]; then
            say "using the engine at $socket"
            return
        fi
        socket=""
    done
    return 1
}

start_engine() {
    local kind=$1 line=""
    "$source_tree/tests/setup/packages" "demo-$kind" || return 1
    say "no engine answers; starting $kind for the demo alone"
    mkfifo "$directory/$kind.keep"
    : >"$directory/$kind.ready"
    "${as_root[@]}" "$source_tree/tests/setup/engine" "$kind" "$directory/$kind" \
        <"$directory/$kind.keep" >"$directory/$kind.ready" &
    engine_process=$!
    exec {keep}>"$directory/$kind.keep"
    while kill -0 "$engine_process" 2>/dev/null; do
        read -r line <"$directory/$kind.ready" || true
        if [ -n "$line" ]; then
            socket=${line#ready * unix://}
            return
        fi
        sleep 0.1
    done
    stop_engine
    return 1
}

stop_engine() {
    [ -n "$engine_process" ] || return 0
    exec {keep}>&-
    wait "$engine_process" || true
    engine_process="" socket=""
}

# The demo must work without a network, so an image that is not there is made: one static busybox.
make_image() {
    local name=$1 root=$directory/root applet
    if engine --output /dev/null "http://engine/v1.40/images/$name/json"; then return; fi
    say "there is no image $name here; making a small one from busybox"
    mkdir -p "$root/bin" "$root/tmp"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in cat date echo env hostname ls sh sleep uname; do ln -s busybox "$root/bin/$applet"; done
    tar --create --owner=0 --group=0 --directory "$root" . |
        engine --output /dev/null --header 'content-type: application/x-tar' --data-binary @- \
            "http://engine/v1.40/images/create?fromSrc=-&repo=${name%:*}&tag=${name##*:}" ||
        die "the engine did not take the image"
    made_image=$name
}

# --- the story -----------------------------------------------------------------------------------

"$source_tree/tests/setup/packages" demo
DOCKER_HOST=${DOCKER_HOST:-}
use_running_engine || start_engine docker || { say "docker does not run here; trying podman"; start_engine podman; } ||
    die "neither docker nor podman can run here: an engine needs root and the right to mount and to make networks"

image=$(sed -n 's/^image: *//p' "$document" | tr -d '"')
case $image in *:*) ;; *) image=$image:latest ;; esac
make_image "$image"

relay() { "$programs/heliograph-server" "$@" --server "$server" --token-file "$directory/data/operator.token"; }

: >"$directory/relay.out"
"$programs/heliograph-server" serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
    --data-dir "$directory/data" >"$directory/relay.out" 2>"$directory/relay.err" {keep}>&- &
relay_process=$!
server=""
until [ -n "$server" ]; do
    kill -0 "$relay_process" 2>/dev/null || { cat "$directory/relay.err" >&2; die "the relay ended"; }
    server=$(sed -n 's/^listening public //p' "$directory/relay.out")
    sleep 0.05
done
relay handle create --count 1 --timeout 120s --label demo --json >"$directory/handle.json"

heading "The user data (examples/hello.yaml, plus the handle's signal URL)"
{ cat "$document"; printf 'signal: %s\n' "$(jq --raw-output .signal_url "$directory/handle.json")"; } >"$directory/user-data"
sed 's/temp_url_sig=[^&]*/temp_url_sig=…/' "$directory/user-data"

status=0
"$programs/heliograph-agent" run --user-data "$directory/user-data" --state-dir "$directory/state" \
    --console "$directory/console" --engine "unix://$socket" --instance-id "$instance" \
    2>"$directory/agent.err" || status=$?

heading "The instance's console: the container's output, and the agent's last line"
cat "$directory/console"
if [ "$status" != 0 ]; then
    cat "$directory/agent.err" >&2
    die "the agent ended with exit code $status"
fi

wait_status=0
relay wait "$(jq --raw-output .id "$directory/handle.json")" --timeout 30s --json >"$directory/wait.json" || wait_status=$?

heading "The signal, as the relay keeps it"
jq '.signals[0]' "$directory/wait.json"

heading "What heliograph-server wait says"
jq '{state, reason, ids: [.signals[].id]}' "$directory/wait.json"
echo "exit code $wait_status"
exit "$wait_status"
