#!/bin/sh
# pid 1: a shell with a TERM handler, for the kernel ignores signals that pid 1 does not handle.
PORT="${PORT:-8080}"
echo "moorage demo: release ${MOORAGE_RELEASE:-none}, listening on port $PORT as $(id -u)"
backlog=llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll # nc listens with a backlog of its -l options
nc -$backlog$backlog -p "$PORT" -e /app/answer 3>&1 &
server=$!
trap 'echo "moorage demo: stopping"; kill $server; exit 0' TERM INT
wait $server
