#!/usr/bin/env bash
# Builds and imports kumo_crt with KUMO_CRT_DEPS=system against the oldest supported libraries.
#
#   tools/check-system-build.sh                      build, import, look at build_info()
#   tools/check-system-build.sh --tests [ARGUMENT…]  and run pytest there with the arguments
#
# The libraries come from tools/native_deps.py's cache, so only the first run builds them.
# PYTHON chooses the interpreter.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work/venv"
python="$work/venv/bin/python"
if ! { command -v cmake && { command -v ninja || command -v make; }; } >/dev/null; then
  "$python" -m pip install --quiet cmake ninja
  export PATH="$work/venv/bin:$PATH"
fi

floor=$("$python" -c "import json, sys; print(json.load(open(sys.argv[1]))['floor'])" \
  "$root/cmake/pins.json")
"$python" "$root/tools/native_deps.py" --version "$floor" --result-file "$work/prefix"

extra=""
if [ "${1:-}" = "--tests" ]; then
  extra="[test]"
fi
KUMO_CRT_DEPS=system CMAKE_PREFIX_PATH=$(cat "$work/prefix") \
  "$python" -m pip install "$root$extra"

cd "$work"
"$python" - "$floor" "$root/cmake/pins.json" <<'PY'
import json
import sys

import kumo_crt

floor, pins = sys.argv[1:]
info = kumo_crt.build_info()
print(json.dumps(info, indent=2))
expected = json.load(open(pins))["awscrt"][floor]["libraries"]
assert info["source"] == "system", info["source"]
assert {name: info["libraries"][name] for name in expected} == expected, info["libraries"]
assert info["features"]["request_body"] is False, info["features"]
assert kumo_crt.crc32c(b"123456789") == 0xE3069283
PY

if [ -n "$extra" ]; then
  shift
  cd "$root"
  "$python" -m pytest "$@"
fi
echo "system build against awscrt $floor: ok"
