# Sourced by scripts that need a virtual environment. The standard library and POSIX sh are all there is at this point.

# Sets $python to the newest interpreter >= 3.10 on the PATH, one that can make environments if there is such a one.
# Each is tried out: a shim of a version manager may stand for a version that is not active.
find_python() {
    python= best=0
    for minor in 20 19 18 17 16 15 14 13 12 11 10 ""; do
        candidate=python3${minor:+.$minor}
        rank=$("$candidate" -c '
import importlib.util, sys
found = [importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip")]
print(sys.version_info[1] + 1000 * all(found) if sys.version_info >= (3, 10) else 0)' 2>/dev/null) || continue
        if [ "$rank" -gt "$best" ]; then
            python=$(command -v "$candidate") best=$rank
        fi
    done
    if [ -z "$python" ]; then
        echo "No Python >= 3.10 found on the PATH; install one (Debian, Ubuntu: apt-get install python3 python3-venv)." >&2
        return 1
    fi
}

# Sets $newer to an interpreter >= 3.12, which Django 6 needs, on the PATH or among pyenv's; to nothing if there is none.
find_newer_python() {
    newer=
    for minor in 20 19 18 17 16 15 14 13 12; do
        for candidate in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python3; do
            if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
                newer=$(command -v "$candidate")
                return
            fi
        done
    done
}

# create_environment DIRECTORY: makes it with venv, or what else can; as root on Debian installs python3-venv.
create_environment() {
    if "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        "$python" -m venv --clear "$1"
    elif command -v uv >/dev/null; then
        uv venv --quiet --seed --clear --python "$python" "$1"
    elif command -v virtualenv >/dev/null; then
        virtualenv --quiet --clear --python "$python" "$1"
    elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        package=$("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')
        echo "Installing $package with apt-get ..."
        apt-get -q update >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$package" >/dev/null
        "$python" -m venv --clear "$1"
    else
        echo "$python cannot make virtual environments: install its venv module (Debian, Ubuntu: apt-get install" \
            "python3-venv), or virtualenv, or uv." >&2
        return 1
    fi
}

# make_environment DIRECTORY REQUIREMENT [PYTHON [CONSTRAINT]]: sets $environment to an environment below DIRECTORY with
# REQUIREMENT installed in editable form, and CONSTRAINT (such as "Django<6") beside it. One is made per interpreter and content of setup.py, and used again as long as they last.
make_environment() {
    python=${3:-}
    if [ -z "$python" ]; then
        find_python
    fi
    key=$("$python" -c '
import hashlib, sys
content = open("setup.py", "rb").read() + repr([sys.version, sys.executable, *sys.argv]).encode()
print("python%d.%d-%s" % (*sys.version_info[:2], hashlib.sha256(content).hexdigest()[:10]))' "$2" "$PWD" "${4:-}")
    environment=$PWD/$1/$key
    if [ ! -e "$environment/complete" ]; then
        echo "Making the environment $1/$key with $python ($("$python" -V)) ..."
        create_environment "$environment"
        "$environment/bin/python" -m pip install -qq --disable-pip-version-check --editable "$2" ${4:+"$4"}
        touch "$environment/complete"
    else
        echo "Using the environment $1/$key"
    fi
}
