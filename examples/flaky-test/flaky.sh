#!/bin/sh
# A test with a race: two writers, and a reader that believes the first is always first.
heard=$(
    (sleep "0.0$((MITO_ARRAY_INDEX * 7 % 5))"; echo first) &
    (sleep 0.02; echo second) &
    wait
)
[ "${heard%%second*}" ] || {
    echo "run $MITO_ARRAY_INDEX: second came first" >&2
    exit 1
}
