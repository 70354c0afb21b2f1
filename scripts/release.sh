#!/usr/bin/env bash
# Makes the files of a release from the commit that is checked out, and publishes nothing.
#
#   scripts/release.sh [FOLDER]     build-release/ by default
#
# Checks that the checkout is clean and that all files name the same version, packs the source tarball, builds the
# Debian packages from that tarball alone, writes an SPDX list of their contents and the checksums of all files, and
# prints the tag to set.  It runs no tests: run `make test-all` before.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mkdir -p "${1:-build-release}" && cd "${1:-build-release}" && pwd)
version=$(sed -n 's/^project(costinfer VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)

fail() {
    echo "release: $*" >&2
    exit 1
}

[ -z "$(git status --porcelain)" ] || fail "the checkout has uncommitted changes"
[ -n "$version" ] || fail "CMakeLists.txt names no version"
grep -q "^## $version" CHANGELOG.md || fail "CHANGELOG.md has no section for $version"
grep -q "^version = \"$version\"" bindings/python/pyproject.toml || fail "bindings/python/pyproject.toml has another version"
head -n 1 debian/changelog | grep -q "^costinfer (${version}[-)]" || fail "debian/changelog has another version"
if git rev-parse -q --verify "refs/tags/v$version" >/dev/null; then
    fail "the tag v$version exists already"
fi
command -v dpkg-buildpackage >/dev/null || fail "dpkg-buildpackage is not installed (make deps-all)"

name=costinfer-$version
# The folder is the caller's: a release before this one may go, and where other files are, nothing is touched.
packages=$(sed -n 's/^Package: //p' debian/control)
is_of_a_release() {
    local package
    case $1 in
        costinfer-*.tar.gz | costinfer-*.spdx.json | SHA256SUMS | dpkg-buildpackage.log) return 0 ;;
    esac
    for package in $packages; do
        case $1 in "${package}_"*.deb | "$package-dbgsym_"*.deb) return 0 ;; esac
    done
    return 1
}
shopt -s nullglob dotglob
for file in "$folder"/*; do
    is_of_a_release "${file##*/}" || fail "$folder has other files, such as ${file##*/}; name a folder of its own"
done
rm -f "$folder/$name.tar.gz" "$folder"/*.deb "$folder/SHA256SUMS" "$folder/$name.spdx.json"
shopt -u nullglob dotglob
# git's own order and gzip -n make the tarball identical for the same commit.
git archive --prefix="$name/" HEAD | gzip -n -9 >"$folder/$name.tar.gz"

epoch=$(git log -1 --format=%ct)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xzf "$folder/$name.tar.gz" -C "$work"
# The packages are built by the system's tools alone: a Python from elsewhere on PATH lacks the modules that they need.
# DEB_BUILD_OPTIONS: no packages of debug symbols.
(cd "$work/$name" && exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$work" LC_ALL=C.UTF-8 \
    DEB_BUILD_OPTIONS="noautodbgsym parallel=$(nproc)" SOURCE_DATE_EPOCH="$epoch" dpkg-buildpackage -us -uc -b) \
    >"$folder/dpkg-buildpackage.log" 2>&1 || fail "the Debian packages do not build: $folder/dpkg-buildpackage.log"
mv "$work"/*.deb "$folder/"

# The SPDX list describes the programs and the library as they are in the packages.
for package in "$folder"/*.deb; do
    dpkg-deb -x "$package" "$work/root"
done
/usr/bin/python3 scripts/make_sbom.py "$version" "$(git rev-parse HEAD)" "$work/root/usr/bin/costd" \
    "$work/root/usr/bin/costinfer" "$work"/root/usr/lib/*/libcostinfer.so.0 >"$folder/$name.spdx.json"
(cd "$folder" && sha256sum -- *.tar.gz *.deb *.spdx.json >SHA256SUMS)

ls -l "$folder"
echo
echo "release: to publish, set the tag and upload the files above:"
echo "    git tag -s v$version -m 'costinfer $version' $(git rev-parse --short HEAD)"
