#!/bin/sh
# Prints what GnuTLS's certtool says of each case.
set -eu

number=0
while [ -d "$1/$number" ]; do
    if said=$(certtool --verify --load-ca-certificate "$1/$number/bundle.pem" \
        --verify-hostname localhost --verify-purpose 1.3.6.1.5.5.7.3.1 \
        <"$1/$number/chain.pem" 2>&1); then
        printf '%s\taccepted\n' "$number"
    else
        reason=$(printf '%s' "$said" | grep -o 'Not verified\..*' | tail -n 1 || :)
        printf '%s\t%s\n' "$number" "${reason:-$(printf '%s' "$said" | tail -n 1)}"
    fi
    number=$((number + 1))
done
