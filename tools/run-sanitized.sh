#!/usr/bin/env bash
# Builds kumo_crt with sanitizers and runs tests against it.
#
#   tools/run-sanitized.sh asan [PYTEST ARGUMENT…]   AddressSanitizer and UBSan
#   tools/run-sanitized.sh tsan [PYTEST ARGUMENT…]   ThreadSanitizer
#
# Where the arguments name no tests, it runs those chosen below; slow ones are left out. The build is
# that of the CMake preset of the same name. The AWS libraries are instrumented too (but for UBSan)
# and come from the cache of tools/native_deps.py. The virtual environment and the build tree are
# kept in build/<sanitizer>. PYTHON chooses the interpreter, CC and CXX the compiler: GCC, because
# its runtime is what gets preloaded.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
sanitizer="${1:-}"
case "$sanitizer" in
  asan | tsan) shift ;;
  *)
    echo "usage: tools/run-sanitized.sh asan|tsan [PYTEST ARGUMENT…]" >&2
    exit 2
    ;;
esac

# The interpreter is not instrumented: the sanitizer's runtime has to be there before it starts.
# ASan looks for the C++ exception functions at its start, so libstdc++ goes with it.
preload=""
for library in "lib$sanitizer.so" libstdc++.so; do
  path=$("${CC:-gcc}" -print-file-name="$library")
  if [ ! -e "$path" ]; then
    echo "$0: ${CC:-gcc} has no $library. Install GCC's development files, or name GCC with CC." >&2
    exit 1
  fi
  preload="$preload $path"
done

build="$root/build/$sanitizer"
python="$build/venv/bin/python"
mkdir -p "$build"
if [ ! -x "$python" ]; then
  "${PYTHON:-python3}" -m venv "$build/venv"
fi
export PATH="$build/venv/bin:$PATH"
# Not in isolation: pybind11 would be at another path each time, and everything compiled again.
"$python" -m pip install --quiet 'scikit-build-core>=0.11' 'pybind11>=3.0,<4' cmake ninja
"$python" -m pip install --quiet --no-build-isolation "$root[test]" \
  --config-settings=cmake.args="--preset=$sanitizer" \
  --config-settings=cmake.build-type=RelWithDebInfo \
  --config-settings=build-dir="$build/cmake"

reports="$build/reports"
rm -rf "$reports"
mkdir -p "$reports"
# Into files: subprocesses report as well, and pytest keeps what they write to itself.
# allocator_may_return_null=1: tests ask for more memory than there is, and get std::bad_alloc.
common="halt_on_error=1:log_path=$reports/$sanitizer:exitcode=66:allocator_may_return_null=1"
if [ "$sanitizer" = asan ]; then
  # detect_leaks=0: the interpreter itself leaks at exit, and as every stack of ours but those of
  #   event loops begins in it, no suppression tells its leaks from ours.
  # handle_segv=2: not pytest's faulthandler, whose report says less.
  # PYTHONMALLOC: what Python lends us has red zones as well.
  export ASAN_OPTIONS="$common:detect_leaks=0:handle_segv=2:detect_stack_use_after_return=1"
  export UBSAN_OPTIONS="$common:print_stacktrace=1"
  export PYTHONMALLOC=malloc
  chosen=(tests/rocksdb tests/eventstream tests/crypto tests/s3 tests/engine tests/backup)
else
  # ignore_noninstrumented_modules=1: CPython and rocksdict synchronise by means that TSan does not
  #   see. Their locks still count, so that what the GIL orders is known to be ordered.
  # die_after_fork=0: a child of a fork may go on.
  export TSAN_OPTIONS="$common:ignore_noninstrumented_modules=1:die_after_fork=0:second_deadlock_stack=1:suppressions=$root/tools/tsan-suppressions.txt"
  # Left out: tests/rocksdb, readers without threads; threads in a child that was forked from a
  # process with threads, which TSan cannot follow ("dup thread with used id").
  chosen=(tests/s3 tests/engine tests/backup)
  set -- --deselect=tests/s3/test_process.py::TestFork "$@"
fi

cd "$root"
arguments=("$@")
named=false
for argument in "$@"; do
  if [ -e "${argument%%::*}" ]; then
    named=true
  fi
done
if [ "$named" = false ]; then
  for path in "${chosen[@]}"; do
    if [ -e "$path" ]; then
      arguments+=("$path")
    fi
  done
fi

status=0
LD_PRELOAD="$preload" "$python" -m pytest -p no:cacheprovider -o timeout=900 -m 'not slow' "${arguments[@]}" || status=$?
# A report of a process that a test started, and whose exit code it did not look at.
for report in "$reports"/*; do
  # Not one of memory that was refused: tests ask for more than there is.
  if [ -e "$report" ] && grep -qv 'WARNING: [A-Za-z]*Sanitizer failed to allocate' "$report"; then
    printf '\n== %s\n' "$report"
    cat "$report"
    status=1
  fi
done
exit "$status"
