#!/bin/sh
# The steps of one build: steps.sh INPUTS STORAGE RUN RESULT WORDS...
# Loads the bases from their OCI layouts, then runs `buildah build WORDS...` and writes RESULT, an OCI layout.
set -eu
in=$1 storage=$2 run=$3 result=$4
shift 4
driver=vfs # copies every layer
probe=$storage/probe
mkdir -p "$probe/lower" "$probe/upper" "$probe/index" "$probe/merged"
if mount -t overlay overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/index" "$probe/merged" \
    2>/dev/null; then
    umount "$probe/merged"
    driver=overlay
fi
run_buildah() {
    buildah --root "$storage/images" --runroot "$run" --storage-driver "$driver" "$@"
}
number=0
while [ -d "$in/base$number" ]; do
    id=$(run_buildah pull -q "oci:$in/base$number:pinned") || exit 1
    run_buildah tag "$id" "localhost/base$number:pinned" || exit 1
    number=$((number + 1))
done
if [ -e "$in/bundle-path" ]; then
    # Our bundle is mounted over the one of the system, if a base has one.
    path=$(cat "$in/bundle-path")
    for file in "$storage"/images/overlay/*/diff"$path" "$storage"/images/vfs/dir/*"$path"; do
        if [ -e "$file" ] || [ -L "$file" ]; then
            : >"${result%/*}/mounted-bundle"
            set -- --volume "/dev/gravingdock/ca.pem:$path:ro" "$@"
            break
        fi
    done
fi
# A RUN chooses the exit code of buildah, so it is not passed on.
run_buildah build "$@" -t "oci:$result:new" -f "$in/Containerfile" "$in/context" || exit 1
