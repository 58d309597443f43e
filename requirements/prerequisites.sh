# Checks what make needs of the system, for the Python given as the only argument. What is missing is installed
# where that is possible (root, and a Debian or Ubuntu), else named with the command that installs it.
set -eu
python=$1

if ! command -v "$python" > /dev/null; then
    echo "$python is not installed. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2
    exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$python is Python $version; 3.11 or newer is needed. Name a newer one: make PYTHON=/path/to/python3" >&2
    exit 1
fi

# Debian and Ubuntu leave these modules out of python3 itself.
"$python" -c 'import ensurepip, venv' 2> /dev/null && exit 0
case $(command -v "$python") in
    /usr/bin/*) package=python$version-venv ;;
    *)
        echo "$python lacks the modules venv and ensurepip, which come with Python. Install it completely." >&2
        exit 1
        ;;
esac
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "Installing $package, which creates virtual environments ..."
    export DEBIAN_FRONTEND=noninteractive
    if { apt-get update && apt-get install --yes --no-install-recommends "$package"; } > /dev/null; then
        exit 0
    fi
fi
echo "The Python module ensurepip is missing. Install it with: sudo apt-get install $package" >&2
exit 1
