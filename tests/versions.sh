#!/usr/bin/env bash
# The S3 suite on the lowest and the highest versions that the extra `s3` allows, on each Python that is found.
#
#   tests/versions.sh [file of tests ...]         all of the S3 suite, if none is named
#   PYTHONS="3.11 3.13" SETS="lowest" tests/versions.sh tests/test_s3_wire.py
#
# Environments are kept in $VERSIONS (.versions by itself); each is made anew when the extra changes.
set -uo pipefail
cd "$(dirname "$0")/.."
place=${VERSIONS:-.versions}
tests=("$@")
[ ${#tests[@]} -gt 0 ] || tests=(
  tests/test_s3_*.py tests/faults/test_lost_answers.py tests/faults/test_broken_stores.py tests/faults/test_s3_endings.py
  tests/faults/test_secrets.py
)

find_python() { # a version, such as 3.12: prints the path of an interpreter
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    if [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null)" = "$1" ]; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

floors() { # the extra's lower bounds, as constraints
  "$1" -c '
import re, tomllib
for line in tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["s3"]:
    name, floor = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", line).groups()
    print(f"{name}=={floor}")
'
}

failed=()
for version in ${PYTHONS:-3.11 3.12 3.13}; do
  if ! python=$(find_python "$version"); then
    echo "Python $version is not found"
    continue
  fi
  for set in ${SETS:-lowest highest}; do
    room=$place/$version-$set
    mkdir -p "$place"
    floors "$python" > "$room.floors"
    if ! cmp -s "$room.floors" "$room.made"; then
      rm -rf "$room" && "$python" -m venv "$room" && "$room/bin/python" -m pip install -q --upgrade "pip>=25.1" || exit 1
      constraints=/dev/null
      [ "$set" = lowest ] && constraints=$room.floors
      # The tests' own demand for aiohttp is higher than the extra's: it is for what they hold it against.
      grep -v '"aiohttp' pyproject.toml > "$room.toml" && mkdir -p "$room/groups" && mv "$room.toml" "$room/groups/pyproject.toml"
      "$room/bin/python" -m pip install -q -c "$constraints" -e ".[s3,cli]" --group "$room/groups/pyproject.toml:test" || exit 1
      cp "$room.floors" "$room.made"
    fi
    "$room/bin/python" -c '
import sys; from importlib.metadata import version
names = ("aioboto3", "aiobotocore", "botocore", "aiohttp", "awscrt")
print("== Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names), flush=True)'
    "$room/bin/python" -m pytest -q -p no:cacheprovider "${tests[@]}" || failed+=("$version $set")
  done
done
echo "failed on: ${failed[*]:-nothing}"
[ ${#failed[@]} -eq 0 ]
