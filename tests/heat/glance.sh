# A real Glance from Debian's package in a lab, for the scene that asks for it: sourced after lib.sh,
# with a lab loaded.
# shellcheck shell=bash

# Its database, its place in the catalog and the user with which it asks Keystone about tokens.
make_glance() {
    [ ! -e "$lab/glance/made" ] || return 0
    "$here/../setup/packages" glance
    (
        umask 077
        mkdir -p "$lab"/glance/{images,staging,locks}
        fill glance-api.conf >"$lab/glance/glance-api.conf"
        glance-manage --config-file "$lab/glance/glance-api.conf" db_sync
    ) >"$lab/log/make-glance.log" 2>&1 || { tail -n 15 "$lab/log/make-glance.log" >&2; die "make-glance failed"; }
    /usr/bin/python3 "$here/seed.py" "$lab" image-service
    : >"$lab/glance/made"
}

# Debian's own start script says that this one is not to be run with uwsgi.
start_glance_api() { spawn glance-api glance-api --config-file "$lab/glance/glance-api.conf"; }
