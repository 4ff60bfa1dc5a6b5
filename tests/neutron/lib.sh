# What stand-up and restart-agent share; read by bash. Needs root, dir, state and inside.

# start NAME COMMAND…: in the chroot, with a /proc and network namespaces of its own, in the background.
# The root is bound to itself because `ip netns exec` wants it to be a mount point; DIR is where it is
# outside, so that a path in it means the same on both sides.
start() {
    local name=$1; shift
    setsid unshare --mount --propagation private sh -c '
        root=$1; shift
        dir=$1; shift
        mkdir -p "$root$dir" && mount --bind "$root" "$root" && mount -t proc proc "$root/proc" &&
            mount --bind "$dir" "$root$dir" && exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root "$@"' \
        sh "$root" "$dir" "$@" </dev/null >"$state/$name.log" 2>&1 &
    echo "$! $name" >>"$dir/pids"
    disown $!
}
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root "$@"; }

# start_agent KIND: its metadata agent.
start_agent() {
    case $1 in
        debian) start agent-debian neutron-metadata-agent --config-file "$inside/debian/agent.conf" ;;
        ovs) start agent-ovs /opt/neutron/bin/neutron-metadata-agent --config-file "$inside/ovs/agent.conf" ;;
        ovn) start agent-ovn /opt/neutron/bin/python3 "$inside/ovn_agent.py" "$inside/ovn/agent.conf" "$inside/instances.json" ;;
    esac
}

# until_true WHAT COMMAND…: a minute is plenty for each step on a slow machine.
until_true() {
    local what=$1 n=0; shift
    until "$@" >/dev/null 2>&1; do
        n=$((n + 1))
        [ "$n" -lt 600 ] || die "$what did not come up"
        sleep 0.1
    done
}
