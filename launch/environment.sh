# Sourced by the scripts beside it: uses the active virtual environment, or .venv, made if missing.

if [ -z "${VIRTUAL_ENV:-}" ]; then
    if [ ! -x .venv/bin/python ]; then
        echo "making a virtual environment in .venv"
        "${PYTHON:-python3}" -m venv .venv
    fi
    source .venv/bin/activate
fi

# XLA on CPUs takes fresh memory at each step: large pages make that a tenth cheaper.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

install_into_environment() {
    echo "installing into $VIRTUAL_ENV (the first time takes a minute or two)"
    python -m pip install --quiet "$@"
}
