#!/bin/sh
# Installs TinySAM Edge from this folder into a virtual environment of its own, and tests it.
# Nothing outside the chosen folder is changed, and a failure leaves an earlier installation as it was.
set -eu

usage() {
    cat <<EOF
usage: ./install.sh [--prefix DIR] [--backend tflite|onnx|both] [--python PYTHON]

  --prefix DIR     where to install (default: ~/tinysam)
  --backend NAME   inference engine: tflite (LiteRT), onnx (ONNX Runtime) or both
                   (default: the first that this bundle has a model for)
  --python PYTHON  interpreter to use (default: python3)

exit codes: 1 cannot install here, 2 wrong usage, 3 damaged bundle, 4 packages not to be had, 5 the self-test failed
EOF
}

fail() {
    code=$1
    shift
    echo "install.sh: $*" >&2
    exit "$code"
}

prefix="$HOME/tinysam"
backend=
python=python3
while [ $# -gt 0 ]; do
    case "$1" in
        --prefix | --backend | --python)
            [ $# -ge 2 ] || fail 2 "$1 needs a value; see ./install.sh --help"
            case "$1" in
                --prefix) prefix=$2 ;;
                --backend) backend=$2 ;;
                --python) python=$2 ;;
            esac
            shift 2
            ;;
        -h | --help) usage; exit 0 ;;
        *) fail 2 "unknown argument $1; see ./install.sh --help" ;;
    esac
done
case "$prefix" in /*) ;; *) prefix="$PWD/$prefix" ;; esac
cd "$(dirname "$0")"

# The machine.
machine=$(uname -m)
case "$machine" in
    aarch64 | arm64) ;;
    armv*) fail 1 "this system is 32-bit ($machine): install the 64-bit Raspberry Pi OS, the engines need it" ;;
    *) fail 1 "this bundle is for 64-bit ARM (aarch64), this machine is $machine" ;;
esac
command -v "$python" >/dev/null 2>&1 || fail 1 "$python not found: sudo apt install python3 python3-venv"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail 1 "$python does not run"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail 1 "Python $version is too old: 3.10 or newer is needed (Debian 12 or newer has it)"
# A 64-bit kernel is no proof: the 32-bit Raspberry Pi OS starts one too.
"$python" -c 'import sys; sys.exit(sys.maxsize < 2**32)' ||
    fail 1 "this system's programs are 32-bit: install the 64-bit Raspberry Pi OS, the engines need it"
"$python" -c 'import os; os.confstr("CS_GNU_LIBC_VERSION")' 2>/dev/null ||
    fail 1 "this system's C library is not glibc, which the engines need: on Android, install a Debian in Termux first"
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail 1 "Python's venv is missing: sudo apt install python3-venv"

# The bundle.
[ -f SHA256SUMS ] || fail 3 "SHA256SUMS is missing: unpack the whole archive again"
damaged=$(sha256sum --quiet -c SHA256SUMS 2>/dev/null | sed 's/: .*//' | head -3 | tr '\n' ' ') || true
[ -z "$damaged" ] || fail 3 "damaged files: ${damaged}- copy and unpack the archive again"
sha256sum --status --strict -c SHA256SUMS 2>/dev/null || fail 3 "files are missing or damaged: copy and unpack the archive again"
engines=$("$python" -c 'import json; print(*json.load(open("bundle.json"))["engines"])')
[ -n "$backend" ] || backend=${engines%% *}
[ "$backend" != both ] || backend=$engines
for name in $backend; do
    case " $engines " in
        *" $name "*) ;;
        *) fail 2 "backend $name: this bundle has models for: $engines" ;;
    esac
done

# Everything goes into a new folder; `current` is pointed at it when the self-test has passed.
release=
finished=
clean_up() {
    [ -z "$release" ] || rm -rf "$release"
    rmdir "$prefix/releases" "$prefix" 2>/dev/null || true
}
trap '[ -n "$finished" ] || clean_up' EXIT
trap 'exit 130' HUP INT TERM
mkdir -p "$prefix/releases" 2>/dev/null || fail 1 "cannot write to $prefix: choose another folder with --prefix"
# The environment with both engines takes about 300 MB.
free_kb=$(df -Pk "$prefix" | tail -1 | tr -s ' ' | cut -d ' ' -f 4)
need_kb=$((150000 + 150000 * $(echo "$backend" | wc -w)))
[ "$free_kb" -ge "$need_kb" ] ||
    fail 1 "$prefix has $((free_kb / 1024)) MB free, $((need_kb / 1024)) MB are needed: make room or choose --prefix"

release=$(mktemp -d "$prefix/releases/py$version-XXXXXX")
chmod 755 "$release"
echo "Making a virtual environment for Python $version in $prefix ..."
"$python" -m venv "$release/venv" || fail 1 "cannot make a virtual environment in $release"
wheel=$(echo wheels/*.whl)
requirements=
for name in $backend; do
    requirements="$requirements ${wheel}[$name]"
done
if [ -d "wheelhouse/$version" ]; then
    echo "Installing from the wheelhouse of this bundle ..."
    source="--no-index --find-links wheelhouse/$version"
    hint="the wheelhouse lacks something; pip's message is above"
else
    [ ! -d wheelhouse ] || echo "The wheelhouse has no packages for Python $version; trying the network ..."
    echo "Installing numpy, Pillow and the engine from the network ..."
    source="--retries 1 --only-binary :all:"
    hint="no network? make the bundle with --with-wheels: it then brings packages for Python 3.11 and 3.13"
fi
# shellcheck disable=SC2086
"$release/venv/bin/python" -m pip install --quiet --disable-pip-version-check $source $requirements ||
    fail 4 "cannot install the packages for Python $version: $hint"

cp -r model selftest selftest.py bundle.json "$release/"
for name in $backend; do
    echo "Self-test with $name:"
    "$release/venv/bin/python" "$release/selftest.py" "$name" || fail 5 "the self-test with $name failed"
done

mkdir -p "$prefix/bin"
cat >"$prefix/bin/tinysam-run.new" <<EOF
#!/bin/sh
TINYSAM_MODEL="\${TINYSAM_MODEL:-$prefix/current/model}" exec "$prefix/current/venv/bin/tinysam-run" "\$@"
EOF
chmod +x "$prefix/bin/tinysam-run.new"
mv "$prefix/bin/tinysam-run.new" "$prefix/bin/tinysam-run"
ln -sfn "$release" "$prefix/current.new"
mv -T "$prefix/current.new" "$prefix/current"
finished=yes
for old in "$prefix"/releases/*; do
    [ "$old" = "$release" ] || rm -rf "$old"
done
echo "Installed. Segment a photograph with:"
echo "  $prefix/bin/tinysam-run photo.jpg --point 200,150"
