# A real Swift from Debian packages in a lab, for comparison: sourced after lib.sh, with $lab set.
# shellcheck shell=bash

swift_servers=(memcached swift-account swift-container swift-object swift-proxy)

# Five ports in a row, below those of outgoing connections.
choose_swift_ports() {
    /usr/bin/python3 -S - <<'PYTHON'
import random, socket
while True:
    first, held = random.randrange(12000, 14990), []
    try:
        for port in range(first, first + 5):
            held.append(socket.socket())
            held[-1].bind(("127.0.0.1", port))
    except OSError:
        continue
    break
print(first)
PYTHON
}

swift_configuration() {
    local swift=$lab/swift name number=0
    mkdir -p "$swift/node/disk"
    cat >"$swift/swift.conf" <<CONF
[swift-hash]
swift_hash_path_suffix = lab
[storage-policy:0]
name = gold
default = yes
CONF
    for name in account container object; do
        number=$((number + 1))
        cat >"$swift/$name.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $((swift_port + number))
devices = $swift/node
mount_check = false
user = $(id -un)
swift_dir = $swift
workers = 1
log_address = $swift/none
[pipeline:main]
pipeline = $name-server
[app:$name-server]
use = egg:swift#$name
CONF
        (cd "$swift" && swift-ring-builder "$name.builder" create 4 1 1 &&
            swift-ring-builder "$name.builder" add "r1z1-127.0.0.1:$((swift_port + number))/disk" 1 &&
            swift-ring-builder "$name.builder" rebalance) >>"$lab/log/swift-rings.log"
    done
    cat >"$swift/proxy.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $swift_port
user = $(id -un)
swift_dir = $swift
workers = 1
[pipeline:main]
pipeline = catch_errors cache tempurl authtoken keystoneauth versioned_writes proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$((swift_port + 4))
[filter:tempurl]
use = egg:swift#tempurl
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = member, admin
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
auth_type = password
www_authenticate_uri = $keystone_url/v3
auth_url = $keystone_url/v3
username = heat
password = $heat_password
project_name = service
user_domain_name = Default
project_domain_name = Default
delay_auth_decision = true
CONF
}

start_swift() {
    mkdir -p "$lab/swift"
    [ -e "$lab/swift/port" ] || choose_swift_ports >"$lab/swift/port"
    swift_port=$(<"$lab/swift/port")
    [ -e "$lab/swift/proxy.conf" ] || swift_configuration
    spawn memcached memcached -l 127.0.0.1 -p "$((swift_port + 4))" -U 0 -u "$(id -un)"
    local name
    for name in account container object proxy; do
        spawn "swift-$name" "swift-$name-server" "$lab/swift/$name.conf"
    done
    await swift-proxy "Swift" answers "http://127.0.0.1:$swift_port/info"
}

stop_swift() {
    local name
    for name in "${swift_servers[@]}"; do stop_process "$name"; done
}
