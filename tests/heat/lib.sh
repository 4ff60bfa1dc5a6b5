# Shared by the scripts of the Heat lab: where things are, and how its processes start and end.
#
# Everything of a lab is below its directory: configuration, databases, keys, logs, and in run/ one
# file per process with its id and its start time, so that never a stranger's process is signalled.
# shellcheck shell=bash

say() { echo "heat lab: $*" >&2; }
die() { say "$*"; exit 1; }

# What a person set for another cloud must not reach this one, nor python's own settings.
unset "${!OS_@}" "${!RABBITMQ_@}" "${!ERL_@}" "${!PYTHON@}" http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
export LC_ALL=C.UTF-8

# Debian's packages want Debian's python, whatever else is first on the path.
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH

# Every process that a lab can have, in the order in which they end.
lab_processes=(glance-api heat-api-spare heat-api-cfn heat-api heat-engine keystone-brief keystone rabbit epmd)

# fill FILE: a template with its @names@ replaced by settings.
fill() {
    local text name
    text=$(<"$here/templates/$1")
    for name in lab keystone_url keystone_port heat_url heat_port heat_spare_port cfn_url cfn_port rabbit_port \
        glance_port admin_password demo_password other_password heat_password heat_domain_password \
        relay_password glance_password; do
        text=${text//"@$name@"/"${!name}"}
    done
    printf '%s\n' "$text"
}

load_lab() {
    lab=$1
    [ -e "$lab/settings" ] || die "there is no lab in $lab: tests/heat/stand-up makes one"
    # shellcheck disable=SC1091
    . "$lab/settings"
}

# --- processes ------------------------------------------------------------------------------------

# The moment in which a process began, in ticks since boot: with its id it names one process for ever.
start_time_of() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# Prints the id of a lab's process that is alive.
process_of() {
    local id began
    { read -r id began <"$lab/run/$1"; } 2>/dev/null || return 1
    [ "$(start_time_of "$id")" = "$began" ] || return 1
    echo "$id"
}

# Starts a process as the leader of a group of its own: workers are signalled together with it.
spawn() {
    local name=$1
    shift
    setsid "$@" >>"$lab/log/$name.log" 2>&1 </dev/null 9>&- &
    local id=$!
    echo "$id $(start_time_of "$id")" >"$lab/run/$name"
}

signal_process() { kill "-$1" -- "-$2" 2>/dev/null || kill "-$1" "$2" 2>/dev/null || true; }

stop_process() {
    local name=$1 id deadline=$((SECONDS + 10))
    if id=$(process_of "$name"); then
        signal_process TERM "$id"
        signal_process CONT "$id"
        while kill -0 -- "-$id" 2>/dev/null; do
            [ "$SECONDS" -lt "$deadline" ] || { signal_process KILL "$id"; break; }
            sleep 0.05
        done
    fi
    rm -f "$lab/run/$name"
}

# await NAME SENTENCE COMMAND…: until the command succeeds, as long as the process lives.
await() {
    local name=$1 what=$2 deadline=$((SECONDS + 90))
    shift 2
    until "$@" >/dev/null 2>&1; do
        process_of "$name" >/dev/null || { tail -n 15 "$lab/log/$name.log" >&2; die "$name ended instead of answering"; }
        [ "$SECONDS" -lt "$deadline" ] || die "waited 90 s in vain for $what; see $lab/log/$name.log"
        sleep 0.1
    done
}

answers() { curl --silent --max-time 5 --output /dev/null "$1"; }

start_epmd() { spawn epmd epmd -port "$epmd_port" -address 127.0.0.1; }

# The broker's scripts take all places from the environment; the erlang cookie is below HOME.
start_rabbit() {
    spawn rabbit env -C "$lab/rabbit" HOME="$lab/rabbit" ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_NODENAME="heat$rabbit_port@localhost" RABBITMQ_CONF_ENV_FILE=/dev/null \
        RABBITMQ_CONFIG_FILE="$lab/rabbit/rabbitmq.conf" RABBITMQ_ADVANCED_CONFIG_FILE="$lab/rabbit/none" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$lab/rabbit/plugins" RABBITMQ_MNESIA_BASE="$lab/rabbit/data" \
        RABBITMQ_LOG_BASE="$lab/log" RABBITMQ_LOGS=- RABBITMQ_DIST_PORT="$rabbit_dist_port" \
        RABBITMQ_PID_FILE="$lab/rabbit/pid" RABBITMQ_GENERATED_CONFIG_DIR="$lab/rabbit/data" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \
        /usr/lib/rabbitmq/bin/rabbitmq-server
}

# start_keystone_as NAME PORT CONFIG-FILES
# This server closes every connection without saying that it will, unless it is told to say so; clients
# that keep connections would now and then write into a closed one.
start_keystone_as() {
    spawn "$1" env OS_KEYSTONE_CONFIG_FILES="$3" uwsgi --plugins python3 --http-socket "127.0.0.1:$2" \
        --wsgi-file /usr/bin/keystone-wsgi-public --master --die-on-term --no-orphans --lazy-apps --need-app \
        --processes 1 --listen 100 --buffer-size 65535 --disable-logging --add-header "Connection: close"
}
start_keystone() { start_keystone_as keystone "$keystone_port" "$lab/keystone/keystone.conf"; }
start_keystone_brief() {
    start_keystone_as keystone-brief "$keystone_brief_port" "$lab/keystone/keystone.conf;$lab/keystone/brief.conf"
}

start_heat_engine() { spawn heat-engine heat-engine --config-file "$lab/heat/heat.conf"; }
start_heat_api() { spawn heat-api heat-api --config-file "$lab/heat/heat.conf"; }
start_heat_api_cfn() { spawn heat-api-cfn heat-api-cfn --config-file "$lab/heat/heat.conf"; }
start_heat_api_spare() {
    spawn heat-api-spare heat-api --config-file "$lab/heat/heat.conf" --config-file "$lab/heat/spare.conf"
}

# An engine that takes orders has a row in the database that began after its process did.
engine_is_up() {
    /usr/bin/python3 -S - "$lab/heat/heat.db" "$(stat --format %Y "$lab/run/heat-engine")" <<'PYTHON'
import datetime, sqlite3, sys
began = datetime.datetime.utcfromtimestamp(int(sys.argv[2])).isoformat(" ")
database = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
rows = database.execute("select count(*) from service where binary = 'heat-engine' and created_at >= ?", [began])
sys.exit(rows.fetchone()[0] == 0)
PYTHON
}

# Makes the handles of all transports but Swift's lead to a relay, or to Heat itself again.
write_forward() {
    local configuration=$lab/heat/heat.conf
    if [ "$1" = none ]; then
        crudini --set "$configuration" DEFAULT heat_waitcondition_server_url "$cfn_url/v1/waitcondition"
        crudini --del "$configuration" clients_heat url
        return
    fi
    crudini --set "$configuration" DEFAULT heat_waitcondition_server_url "$1/v1/waitcondition"
    crudini --set "$configuration" clients_heat url "$1/v1/%(tenant_id)s"
}

start_process() {
    if process_of "$1" >/dev/null; then return; fi
    case $1 in
        epmd) start_epmd; await epmd "the port mapper" epmd -port "$epmd_port" -names ;;
        rabbit) start_rabbit; await rabbit "the broker" grep -q 'Server startup complete' "$lab/log/rabbit.log" ;;
        keystone) start_keystone; await keystone "Keystone" answers "$keystone_url/v3" ;;
        keystone-brief) start_keystone_brief; await keystone-brief "Keystone" answers "http://127.0.0.1:$keystone_brief_port/v3" ;;
        heat-engine) start_heat_engine; await heat-engine "the engine" engine_is_up ;;
        heat-api) start_heat_api; await heat-api "heat-api" answers "$heat_url/" ;;
        heat-api-cfn) start_heat_api_cfn; await heat-api-cfn "heat-api-cfn" answers "$cfn_url/" ;;
        heat-api-spare) start_heat_api_spare; await heat-api-spare "heat-api" answers "http://127.0.0.1:$heat_spare_port/" ;;
        glance-api)
            # shellcheck source=tests/heat/glance.sh
            . "$here/glance.sh"
            make_glance
            start_glance_api
            await glance-api "Glance" answers "$glance_url/"
            ;;
        *) die "a lab has no process $1: it has ${lab_processes[*]}" ;;
    esac
}

# start_relay PROGRAM DIRECTORY: a relay that asks this lab's Keystone. Sets $relay, its process id, and
# $relay_url; the caller ends it.
start_relay() {
    printf '[keystone]\nauth_url = "%s"\nusername = "heliograph"\npassword_file = "%s"\nproject = "service"\n' \
        "$keystone_url/v3" "$2/password" >"$2/relay.toml"
    (umask 077; echo "$relay_password" >"$2/password")
    "$1" serve --config "$2/relay.toml" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --data-dir "$2/data" \
        >"$2/relay.out" 2>"$2/relay.err" </dev/null &
    relay=$!
    until grep -q 'listening admin' "$2/relay.out"; do
        kill -0 "$relay" 2>/dev/null || { cat "$2/relay.err" >&2; die "the relay did not start"; }
        sleep 0.1
    done
    # shellcheck disable=SC2034
    relay_url=$(sed -n 's/^listening public //p' "$2/relay.out")
}
