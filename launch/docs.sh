#!/usr/bin/env bash
# Builds the documentation into site/: open site/index.html (only its search needs serve). Warnings,
# links and anchors that lead nowhere, and what a page would load from another host are errors.
#
#   bash launch/docs.sh            builds it
#   bash launch/docs.sh serve      shows it at http://127.0.0.1:8000 while pages are written
#   bash launch/docs.sh links      asks the hosts of all links to other places whether they are there
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ "${1:-}" == links ]]; then
  gone=0
  # Not those that are made up: the project's own address, and addresses in examples.
  for link in $(grep -rohE --include='*.md' 'https?://[^])>"` ]+' README.md CHANGELOG.md docs | sort -u |
    grep -vE '\.example|127\.0\.0\.1|localhost|\.\.\.'); do
    curl --silent --fail --location --head --max-time 20 --output /dev/null "$link" || { echo "docs: no answer: $link" >&2; gone=1; }
  done
  exit "$gone"
fi

EXTRAS=docs source launch/setup_venv.sh
export NO_MKDOCS_2_WARNING=1 # of what the theme's authors think of a later mkdocs

if [[ "${1:-}" == serve ]]; then
  exec mkdocs serve --strict
fi
mkdocs build --strict --quiet --clean
# A link may lead to another host; a script, a style, a font or a picture may not come from there.
remote='<(script|img|iframe)[^>]* src="?(https?:)?//|<link[^>]* href="?(https?:)?//|(url\(|@import )["'\'']?(https?:)?//'
if grep -rEoH --include='*.html' --include='*.css' "$remote[^\"' >)]*" site; then
  echo "docs: these pages would load something from another host" >&2
  exit 1
fi
echo "docs: site/index.html"
