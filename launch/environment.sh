# Sourced by the other scripts: uses the active virtual environment, or .venv, created if missing.

if [ -z "${VIRTUAL_ENV:-}" ]; then
    if [ ! -x .venv/bin/python ]; then
        echo "creating a virtual environment in .venv"
        "${PYTHON:-python3}" -m venv .venv
    fi
    source .venv/bin/activate
fi

# XLA on CPUs allocates memory at each step: with huge pages, that costs a tenth less.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

install_into_environment() {
    echo "installing into $VIRTUAL_ENV (the first time takes a minute or two)"
    python -m pip install --quiet "$@"
}
