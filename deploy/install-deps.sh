#!/bin/sh
# Installs the programs that the demo and the tests start (pgbouncer, a PostgreSQL server, psql,
# openssl, prometheus with promtool), and the C compiler that the build needs. Does nothing where they are there. Knows Debian and Ubuntu; elsewhere it names what is
# missing and stops.
set -eu

# Debian keeps daemons in sbin, which is not in everybody's PATH.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

has_postgres() {
    command -v postgres >/dev/null 2>&1 && return 0
    for program in /usr/lib/postgresql/*/bin/postgres; do
        [ -x "$program" ] && return 0
    done
    return 1
}

missing=""
command -v pgbouncer >/dev/null 2>&1 || missing="$missing pgbouncer"
has_postgres || missing="$missing postgresql"
command -v psql >/dev/null 2>&1 || missing="$missing postgresql-client"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
if ! { command -v prometheus && command -v promtool; } >/dev/null 2>&1; then
    missing="$missing prometheus"
fi
# The linker that Rust calls, and the compiler of ring's C and assembly.
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    {
        echo "error: these programs are missing:$missing"
        echo "They are installed by themselves on Debian and Ubuntu only. Please install PgBouncer,"
        echo "a PostgreSQL server with psql, openssl, Prometheus and a C compiler from your distribution, then run"
        echo "this again."
    } >&2
    exit 1
fi

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "error: missing:$missing; installing them needs root or sudo" >&2
        exit 1
    fi
    as_root="sudo"
fi

echo "deps: installing$missing"
apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" </dev/null >"$log" 2>&1 || {
        cat "$log" >&2
        echo "error: apt-get $1 failed" >&2
        exit 1
    }
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt update
# shellcheck disable=SC2086 # a list of words
apt install --yes --no-install-recommends $missing

# Debian starts what it installs. What was not here a minute ago is nobody's server: it is stopped,
# and kept from starting with the machine. Services that were here before are left alone.
for service in $missing; do
    case "$service" in
    pgbouncer | postgresql | prometheus)
        echo "deps: stopping the $service service that the package has just started"
        if [ -d /run/systemd/system ]; then
            $as_root systemctl disable --now "$service" >/dev/null 2>&1 || true
        else
            $as_root service "$service" stop >/dev/null 2>&1 || true
            $as_root update-rc.d "$service" disable >/dev/null 2>&1 || true
        fi
        ;;
    esac
done
