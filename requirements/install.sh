#!/bin/sh
# Makes .venv from the pinned requirements. Called by the Makefile when .venv is missing, broken or out of date.
#
# .venv/.installed is written last and removed first: without it .venv is a half-made one, and is made anew.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

# fits PYTHON MINOR: at least 3.10.12, which onnx2tf asks for, and below 3.MINOR.
fits() {
    "$1" -c "import sys; sys.exit(not (3, 10, 12) <= sys.version_info[:3] < (3, $2))" 2>/dev/null
}

# 3.12 comes last although everything runs on it: onnxsim 0.4.36, which onnx2tf pins, has no wheel for it. TensorFlow
# 2.19 has none for 3.13.
choose_python() {
    for below in 12 13; do
        for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.10}; do
            if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate" "$below"; then
                if [ "$below" = 13 ]; then
                    say "  with Python 3.12, for which onnxsim is built from source: that takes cmake, a C++ compiler and some minutes"
                fi
                printf '%s\n' "$candidate"
                return
            fi
        done
    done
    if [ -n "${PYTHON:-}" ]; then
        say "$PYTHON is $("$PYTHON" --version 2>/dev/null || echo missing), not Python 3.10.12 to 3.12."
    else
        say "python3 is $(python3 --version 2>/dev/null || echo missing), and there is no python3.11, python3.12 or python3.10 beside it."
    fi
    say "  Install one of them (3.10.12 or newer), or name one: make run PYTHON=/path/to/python3.11"
    return 2
}

make_venv() {
    python=$(choose_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        say "$python cannot make virtual environments."
        say "  Install its venv module (on Debian and Ubuntu: the package python3-venv) and run make again."
        return 2
    fi
    rm -rf .venv
    "$python" -m venv .venv
}

# -qq: errors only. No byte-compiling ahead: Python does it for the fraction that is ever imported.
pip_install() {
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input --no-compile "$@"
}

if [ -e .venv/.installed ] && .venv/bin/python -c '' 2>/dev/null; then
    say "[1/4] .venv is out of date, bringing it up to date"
    rm -f .venv/.installed
else
    say "[1/4] making .venv"
    make_venv
fi

# Alone and before everything that depends on it: pip then takes a CPU build where one is at hand, and no resolution
# of the others can talk it out of that.
say "[2/4] installing torch"
pip_install -c requirements/lock.txt -c requirements/cuda.txt "$(grep '^torch==' requirements/lock.txt)"

# The lock is complete (pip check below), so pip need not resolve anything.
say "[3/4] installing the pinned packages; this takes a minute or two"
pip_install --no-deps -r requirements/lock.txt

say "[4/4] installing this project"
pip_install --no-deps --no-build-isolation -e .
.venv/bin/python -m pip check >.venv/pip-check.txt 2>&1 || { cat .venv/pip-check.txt >&2; exit 1; }

touch .venv/.installed
