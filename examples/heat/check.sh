#!/bin/sh
# Creates a stack that waits, signals as a server would, waits for the stack and deletes it.
#
#   examples/heat/check.sh [TEMP_URL_SIGNAL|TOKEN_SIGNAL|CFN_SIGNAL]
#
# Needs a login (OS_* variables), the openstack client with its Heat plugin, curl and jq. Prints where the
# signal went, what came back, and how the stack ended; the exit code is 0 when it completed.

set -eu
transport=${1:-TEMP_URL_SIGNAL}
stack=heliograph-check-$$

output() { openstack stack output show "$stack" "$1" -f json | jq -r '.output_value // empty'; }
status() { openstack stack show "$stack" -f json -c stack_status | jq -r .stack_status; }

openstack stack create --template "$(dirname "$0")/check.yaml" --parameter "transport=$transport" "$stack" >/dev/null
trap 'openstack stack delete --yes --wait "$stack" >/dev/null' EXIT

tries=0 url=""
while [ -z "$url" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 30 ] || { echo "there is no handle to signal: $(status)" >&2; exit 1; }
    sleep 1
    # TOKEN_SIGNAL has its own pair of attributes instead of `signal`.
    url=$(output signal | jq -r '.alarm_url // empty')
    if [ -z "$url" ]; then url=$(output endpoint); fi
done
echo "signal to $(echo "$url" | cut -d'?' -f1)"

body='{"status": "SUCCESS", "id": "check", "data": "it works"}'
if [ "$transport" = TOKEN_SIGNAL ]; then
    curl --silent --show-error --fail --write-out 'answered with %{http_code}\n' --output /dev/null \
        --request POST --header "X-Auth-Token: $(output token)" --header 'Content-Type: application/json' \
        --data-binary "$body" "$url"
else
    curl --silent --show-error --fail --write-out 'answered with %{http_code}\n' --output /dev/null \
        --request PUT --header 'Content-Type: application/json' --data-binary "$body" "$url"
fi

while [ "$(status)" = CREATE_IN_PROGRESS ]; do sleep 1; done
end=$(status)
echo "$end with data $(output data)"
[ "$end" = CREATE_COMPLETE ]
