#!/bin/sh
# Usage: more-pgbouncers.sh DIR
#
# Puts the PgBouncers of other Debian suites into DIR, one folder per suite, each with a program
# `pgbouncer` that runs here: the packages of the program and of every library that it needs are
# unpacked beside it, and it is started with that suite's own loader. Nothing is installed, no
# package of this machine changes, and no root is needed. The archive is the one that this machine's
# apt uses already. Done in a moment where everything is there.
#
# The rule for a version that cannot be had. If the archive does not hand out the Release file of a
# suite (out of reach, forbidden, not a Debian archive), that is the archive's business: the reason
# goes to DIR/SUITE/refused, is printed, and the tests of that version say that they did not run.
# Everything after that is ours: a package that is missing from an index we hold, an archive that
# does not unpack, a program that does not run. Then this script fails where CI=true, and elsewhere
# goes on as if refused. So CI never passes over a mistake of ours, and a machine without a network
# still runs all tests of the version that it has.
set -eu

suites="trixie sid"
into=${1:?the directory to put them into}
mkdir -p "$into"
into=$(cd "$into" && pwd)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
failed=0

# Prints a line, and leaves the reason for the tests.
refuse() {
    echo "more-pgbouncers: NOT AVAILABLE: PgBouncer of Debian $1: $2" >&2
    mkdir -p "$into/$1"
    echo "$2" >"$into/$1/refused"
}

broken() {
    refuse "$1" "$2"
    [ "${CI:-}" != true ] || failed=1
}

# apt with a state of its own, in $work; knows nothing of what is installed here.
private_apt() {
    command=$1
    shift
    "$command" -q \
        -o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" \
        -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=2 \
        -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 \
        -o Acquire::Check-Valid-Until=false -o APT::Get::List-Cleanup=false "$@" </dev/null
}

# The Debian archive that this machine's apt uses for its own release.
archive() {
    release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release | tr -d '"')
    apt-get update --print-uris 2>/dev/null |
        sed -n "s#^'\(.*\)/dists/$release/InRelease' .*#\1#p" | head -n 1
}

# The pooler, and what its libraries are called: nothing else of what it depends on is needed to run it.
packages() {
    private_apt apt-get -s --no-install-recommends install pgbouncer 2>"$work/log" |
        sed -n 's/^Inst \(pgbouncer\|lib[^ ]*\) .*/\1/p'
}

# Leaves only the program and the libraries that its loader asks for, and writes the wrapper; $1 is
# where everything is unpacked.
arrange() {
    mkdir -p "$1/lib" "$1/all"
    find "$1/root" \( -name '*.so' -o -name '*.so.*' \) -exec cp -L {} "$1/all/" \; 2>/dev/null
    loader=$(cd "$1/all" && echo ld-linux*.so.*)
    cp "$1/root/usr/sbin/pgbouncer" "$1/all/$loader" "$1/lib/"
    chmod 755 "$1/lib/$loader" "$1/lib/pgbouncer"
    "$1/lib/$loader" --list --library-path "$1/all" "$1/lib/pgbouncer" |
        sed -n 's#.* => \(/[^ ]*/all/[^ ]*\) .*#\1#p' | while read -r library; do
        cp "$library" "$1/lib/"
    done
    rm -rf "$1/root" "$1/all"
    # The program and its file end the command line, as they do without a wrapper.
    cat >"$1/pgbouncer" <<WRAPPER
#!/bin/sh
here=\${0%/*}/lib
exec "\$here/$loader" --library-path "\$here" "\$here/pgbouncer" "\$@"
WRAPPER
    chmod 755 "$1/pgbouncer"
    chmod -R a+rX "$1"
}

fetch() {
    suite=$1
    signed=""
    [ ! -r "$keyring" ] || signed="[signed-by=$keyring] "
    echo "deb $signed$mirror $suite main" >"$work/sources.list"
    mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/new/root"
    : >"$work/status"
    if ! private_apt apt-get -o APT::Update::Error-Mode=any update >"$work/log" 2>&1; then
        if ls "$work"/state/lists/*Release >/dev/null 2>&1; then
            broken "$suite" "its index could not be read: $(grep -m 1 '^[EW]:' "$work/log")"
        else
            refuse "$suite" "the archive does not hand it out: $(grep -m 1 '^[EW]:' "$work/log")"
        fi
        return
    fi
    wanted=$(packages)
    if [ -z "$wanted" ]; then
        broken "$suite" "its packages do not fit together: $(grep -m 1 '^E:' "$work/log")"
        return
    fi
    # shellcheck disable=SC2086 # a list of words
    if ! (cd "$work/debs" && private_apt apt-get download $wanted >"$work/log" 2>&1); then
        broken "$suite" "its packages could not be fetched: $(grep -m 1 '^E:' "$work/log")"
        return
    fi
    for package in "$work"/debs/*.deb; do
        dpkg-deb -x "$package" "$work/new/root" || true
    done
    arrange "$work/new" || true
    if ! "$work/new/pgbouncer" --version >"$work/log" 2>&1; then
        broken "$suite" "its program does not run: $(head -n 1 "$work/log")"
        return
    fi
    rm -rf "${into:?}/$suite"
    mv "$work/new" "$into/$suite"
    echo "more-pgbouncers: $("$into/$suite/pgbouncer" --version | head -n 1) of Debian $suite is there"
}

work=""
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
mirror=""
for suite in $suites; do
    "$into/$suite/pgbouncer" --version >/dev/null 2>&1 && continue
    if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
        refuse "$suite" "this machine has no apt"
        continue
    fi
    [ -n "$mirror" ] || mirror=$(archive)
    if [ -z "$mirror" ] || ! grep -q '^ID=debian' /etc/os-release; then
        refuse "$suite" "this machine's apt names no Debian archive"
        continue
    fi
    work=$(mktemp -d "$into/.fetch-XXXXXX")
    echo "more-pgbouncers: fetching PgBouncer of Debian $suite"
    fetch "$suite"
    rm -rf "$work"
    work=""
done
exit "$failed"
