#!/bin/sh
# The bridge's tests on the oldest and on the newest packages that pyproject.toml allows, side by side, on the oldest
# and the newest Python from 3.10 to 3.14 that is here. Called by `make ends`; what it makes lies in .ends.
set -eu
cd "$(dirname "$0")/.."

UV="$PWD/.venv/bin/uv"
LIMIT=1200 # seconds for the tests of one end

say() { printf '%s\n' "$*" >&2; }

# Every interpreter that works, as "minor path", oldest first.
pythons() {
    for candidate in ${PYTHONS:-python3.10 python3.11 python3.12 python3.13 python3.14 python3 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python}; do
        "$candidate" -c 'import sys, venv
if (3, 10) <= sys.version_info[:2] <= (3, 14):
    print(sys.version_info[1], sys.executable)' 2>/dev/null || true
    done | sort -n
}

# end NAME PYTHON RESOLUTION: installs and tests. torchvision 0.19 belongs to torch 2.4, and brings the tests' networks.
end() {
    "$UV" venv -q --clear -p "$2" ".ends/$1"
    "$UV" pip install -q -p ".ends/$1" --resolution "$3" -e '.[torch,verify]' 'torchvision>=0.19'
    "$UV" pip install -q -p ".ends/$1" pytest pytest-timeout hypothesis
    "$UV" pip list -q -p ".ends/$1" --format freeze
    # Without the slow ones, and those that train with the laboratory: these run in its own environment.
    PYTHONPATH="$PWD" timeout "$LIMIT" ".ends/$1/bin/python" -m pytest -q -p no:cacheprovider -m 'not slow' tests/bridge \
        --ignore tests/bridge/exact/test_architectures.py --ignore tests/bridge/exact/test_models.py
}

oldest=$(pythons | head -n 1)
newest=$(pythons | tail -n 1)
if [ -z "$oldest" ]; then
    say "There is no Python from 3.10 to 3.14 here. Name some: make ends PYTHONS='/path/to/python3.10 /path/to/python3.13'"
    exit 2
fi

mkdir -p .ends
end oldest "${oldest#* }" lowest-direct >.ends/oldest.log 2>&1 & first=$!
end newest "${newest#* }" highest >.ends/newest.log 2>&1 & second=$!
failed=
wait $first || failed=oldest
wait $second || failed="$failed newest"
for name in oldest newest; do
    say "$name: Python $(".ends/$name/bin/python" -c 'import platform; print(platform.python_version())' 2>/dev/null), $(
        grep -E '^(numpy|onnx|onnxruntime|ai-edge-litert|torch)==' ".ends/$name.log" | tr '\n' ' ')"
    tail -n 1 ".ends/$name.log"
done
for name in $failed; do
    say "The $name end failed (.ends/$name.log):"
    tail -n 80 ".ends/$name.log"
done
[ -z "$failed" ]
